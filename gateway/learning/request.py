"""The request and the result of a fit."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

from gateway.detectors.spatial_weighting import WeightsMode
from gateway.monitoring.timing import StageTimes
from gateway.store.manifest import ExcludedImage, Manifest, OkImage
from gateway.store.roi_key import RoiKey
from postprocess.roi_mask import Shape

CalibrationState = Literal["none", "current", "redone", "stale"]
"""State of the calibration after a fit.

A calibration that rests on leave-one-out scores alone is redone. Any other becomes stale.
"""


TilesAsked = Literal["auto"] | int
"""``auto``: as many as keep the resolution of the images, and 1 for small images; a number: at most that many."""


@dataclass(frozen=True, slots=True)
class ImageFile:
    """A file of a request. It is read when it is needed, so that a fit does not hold all files in memory."""

    name: str
    """For messages only."""
    read: Callable[[], bytes]
    """Returns the whole file. It is called in a worker thread, more than once.

    It raises FileNotFoundError for a stored image that was deleted meanwhile.
    """
    shape: Shape | None = None
    """Where the part is in this image, if the request does not say it for all."""
    shape_json: str | None = None


@dataclass(frozen=True, slots=True)
class FitRequest:
    """OK images to learn. For parameters that are None, the version before decides, else the settings."""

    key: RoiKey
    images: Sequence[ImageFile]
    mm_per_px: float
    shape: Shape | None = None
    shape_json: str | None = None
    coreset_rate: float | None = None
    seed: int | None = None
    spatial_weights: WeightsMode | None = None
    """For an ROI without a manual box."""
    bit_depth: int | None = None
    """Bits of a sample of the camera, 8 to 16."""
    tiles: TilesAsked | None = None
    """How many tiles an image is cut into."""
    exclude_suspects: bool = False
    stored: bool = False
    """Learn the stored OK images; `images` is then empty."""
    warnings: tuple[str, ...] = ()
    """Warnings from reading the request."""


@dataclass(frozen=True, slots=True)
class SuspectImage:
    """An OK image that is probably defective."""

    image: OkImage
    score: float
    """Leave-one-out score."""
    robust_z: float
    excluded: bool = False

    def as_excluded(self, version: int) -> ExcludedImage:
        """Return the image's entry among the excluded images of a manifest.

        Args:
            version: the first version without the image.
        """
        return ExcludedImage(**self.image.model_dump(), score=self.score, robust_z=self.robust_z, excluded_in=version)


@dataclass(frozen=True, slots=True)
class FitResult:
    """The result of a fit."""

    manifest: Manifest
    n_added: int
    duplicates: int
    suspects: list[SuspectImage]
    """Worst first."""
    calibration: CalibrationState
    warnings: list[str]
    times: StageTimes
