"""What an evaluation needs of the gateway, whether it runs in this process or behind HTTP."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from evaluation.data import Sample

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


class Inspector(Protocol):
    """The gateway with one ROI to fit, calibrate and inspect."""

    maps: str
    """What its maps are, for the report."""

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

    async def map_of(self, sample: Sample) -> NDArray[np.float32]:
        """The blurred anomaly map that regions are cut from, float32 [H, W], in pixels of the image."""

    async def close(self) -> None:
        """Give everything back."""
