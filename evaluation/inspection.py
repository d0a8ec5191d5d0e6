"""What an evaluation needs of the gateway, whether it runs in this process or behind HTTP."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from evaluation.data import Sample
from gateway.store.manifest import DetectorKind
from postprocess.anomaly_map import ScoreRule

Progress = Callable[[int], None]
"""Told how many more images are done."""


@dataclass(frozen=True, slots=True, eq=False)
class Judged:
    """One image and what the gateway said of it."""

    sample: Sample
    score: float
    verdict: str
    reason: str | None
    contours: Sequence[NDArray[np.int32]]
    """Of the regions, [P, 2] each."""

    @property
    def is_rejected(self) -> bool:
        """By the whole verdict, score or region."""
        return self.verdict == "ng"


@dataclass(frozen=True, slots=True)
class Calibrated:
    """The thresholds that judge, and what the calibration states of unseen OK images."""

    threshold: float
    pixel_threshold: float
    method: str
    n_ok: int
    stated_rate: float
    stated_interval: tuple[float, float]
    stated_verdict_rate: float | None
    stated_verdict_interval: tuple[float, float] | None
    score_percentile: float
    area_mm2_thr: float
    warnings: Sequence[str] = ()


@dataclass(frozen=True, slots=True)
class FitRecipe:
    """How to fit; what is None comes from the gateway's settings."""

    coreset_rate: float | None = None
    seed: int | None = None
    exclude_suspects: bool = False


@dataclass(frozen=True, slots=True)
class Cost:
    """What a detector takes. None was not measured, or cannot be from here."""

    learn_s: float | None
    """Of the fit, networks included, or of training, export and publication."""
    p50_ms: float | None
    """Of one inspection after another, heatmap included."""
    p95_ms: float | None
    n_timed: int
    version_bytes: int | None
    """Of a version on disk."""
    memory_bytes: int | None
    """Of a version in use; a compiled network comes on top."""
    shared_bytes: int | None
    """Of the network that all versions of this detector share, on disk."""


class Inspector(Protocol):
    """The gateway with one ROI to fit, calibrate and inspect."""

    detector: DetectorKind
    maps: str
    """What its maps are, for the report."""
    rule: ScoreRule
    """What the score takes of a map."""

    def describe(self) -> dict[str, Any]:
        """Model, runtime and settings, for the report."""

    async def fit(self, images: Sequence[Path], recipe: FitRecipe, progress: Progress) -> dict[str, Any]:
        """Learn OK images as a new ROI.

        Returns:
            What was learned, for the report.
        """

    async def calibrate(self, p_score: float | None) -> Calibrated:
        """Choose thresholds from the fit's own leave-one-out scores, the default calibration."""

    async def inspect(self, samples: Sequence[Sample], progress: Progress) -> list[Judged]:
        """Inspect images, in order."""

    async def cost(self, samples: Sequence[Sample], progress: Progress) -> Cost:
        """Inspect images one after another as a client would have it, and tell what that and the fit took."""

    async def map_of(self, sample: Sample) -> NDArray[np.float32]:
        """The blurred anomaly map that regions are cut from, float32 [H, W], in pixels of the image."""

    async def close(self) -> None:
        """Give everything back."""
