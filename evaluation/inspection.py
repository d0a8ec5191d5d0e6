"""The protocol by which an evaluation uses the gateway, in this process or over HTTP."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from evaluation.data import Sample
from gateway.learning.request import TilesAsked
from gateway.store.manifest import DetectorKind
from postprocess.anomaly_map import ScoreRule

Progress = Callable[[int], None]
"""Is called with the number of newly finished images."""


@dataclass(frozen=True, slots=True, eq=False)
class Judged:
    """One image and the gateway's answer."""

    sample: Sample
    score: float
    verdict: str
    reason: str | None
    contours: Sequence[NDArray[np.int32]]
    """Contours of the regions, [P, 2] each."""

    @property
    def is_rejected(self) -> bool:
        """Whether the whole verdict rejects the image."""
        return self.verdict == "ng"


@dataclass(frozen=True, slots=True)
class Calibrated:
    """The thresholds in use, and the stated false alarms."""

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
    """Options of a fit; None takes the gateway's setting."""

    coreset_rate: float | None = None
    seed: int | None = None
    exclude_suspects: bool = False
    tiles: TilesAsked | None = None


@dataclass(frozen=True, slots=True)
class Cost:
    """Time and memory of a detector; None where it was not measured."""

    learn_s: float | None
    """Seconds of the fit with its network calls, or of training, export and publication."""
    p50_ms: float | None
    """Milliseconds of each inspection, in turn, with its heatmap."""
    p95_ms: float | None
    n_timed: int
    version_bytes: int | None
    """Bytes of a version on disk."""
    memory_bytes: int | None
    """Bytes of a loaded version, without a compiled network."""
    shared_bytes: int | None
    """Bytes on disk of the network that all versions of this detector share."""


class Inspector(Protocol):
    """A gateway with one ROI to fit, calibrate and inspect."""

    detector: DetectorKind
    maps: str
    """Kind of its maps, for the report."""
    rule: ScoreRule
    """How a map becomes a score."""

    def describe(self) -> dict[str, Any]:
        """Return model, runtime and settings for the report."""

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
        """Inspect images one after another, like one client, and return time and memory."""

    async def map_of(self, sample: Sample) -> NDArray[np.float32]:
        """Return the blurred anomaly map, float32 [H, W], in pixels of the image."""

    async def close(self) -> None:
        """Release everything."""
