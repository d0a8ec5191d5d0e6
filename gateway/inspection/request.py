"""A request to inspect one image, and what the gateway knows once the image is decoded."""

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from gateway.images.appearance import Look
from gateway.images.tiling import Tiling
from gateway.inspection.version_cache import FittedRoi
from gateway.monitoring.timing import StageTimes
from gateway.networks import TokenEngine
from gateway.networks.model_description import ModelDescription
from gateway.store.roi_key import RoiKey
from postprocess.roi_mask import Shape

HeatmapMode = Literal["base64", "path", "none"]


@dataclass(frozen=True, slots=True)
class InferRequest:
    """One image to inspect. A parameter that is None comes from the calibration or the settings."""

    key: RoiKey
    image: bytes
    """The file as sent."""
    image_name: str
    """Name of the file, for messages."""
    mm_per_px: float
    shape: Shape | None = None
    """In pixels of the image as sent."""
    bit_depth: int | None = None
    """Bits a sample of the camera, 8 to 16; None takes that of the version."""
    k: int | None = None
    p_score: float | None = None
    blur_sigma: float | None = None
    area_mm2_thr: float | None = None
    heatmap: HeatmapMode = "base64"
    explain: bool = False
    """Whether the answer shows the OK patch nearest to the most anomalous patch."""
    warnings: tuple[str, ...] = ()
    """Warnings found while the request was read."""


@dataclass(frozen=True, slots=True, eq=False)
class DecodedImage:
    """The image of a request, decoded."""

    tiles: NDArray[np.uint8]
    """[T, S, S, 3] RGB, the tiles of the image; one without tiling."""
    size_wh: tuple[int, int]
    """Width and height in pixels of the image as sent, upright."""
    looks: Look
    pixels_sha256: str
    """The identity of the picture, from `pixel_digest`."""
    nothing_shown: str | None = None
    """Why the picture shows nothing; None where it shows something."""
    pixels: NDArray[np.uint8] | None = None
    """[H, W] or [H, W, 3] RGB, kept for an explanation; see `kept_pixels`."""
    warnings: tuple[str, ...] = ()
    """What the client should know about the picture."""


@dataclass(frozen=True, slots=True, eq=False)
class PreparedRequest:
    """A request that is ready for the network."""

    request: InferRequest
    roi: FittedRoi
    engine: TokenEngine
    model: ModelDescription
    """The model that the engine serves; it is the one that the version needs."""
    tiling: Tiling
    image: DecodedImage
    times: StageTimes
