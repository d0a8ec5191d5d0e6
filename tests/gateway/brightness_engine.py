"""A token engine with results computable by hand: a token is an angle, the brightness of its patch."""

import hashlib

import cv2
import numpy as np
from numpy.typing import NDArray

from gateway.networks import Priority
from gateway.networks.model_description import ModelDescription, WeightsSource
from gateway.networks.protocol import EngineStatus

GRID = 4
PATCH = 4
SIDE = GRID * PATCH
_DIM = 8


class BrightnessEngine:
    """Tokens (cos θ, sin θ, 0, …), θ = mean grey of a 4×4 patch in hundredths of a radian.

    The distance between patches of grey a and b is 2 sin(|a − b| / 200), for small differences |a − b| / 100.
    """

    device = "cpu"
    status = EngineStatus(ready=True, device="cpu", runtime="brightness")

    def __init__(self, fingerprint: str = "brightness") -> None:
        self.model = ModelDescription(
            name="brightness",
            timm_id="none",
            input_size=SIDE,
            scales=(SIDE,),
            layers=(0,),
            token_hw=(GRID, GRID),
            dim=_DIM,
            weights=WeightsSource(kind="file", detail="none", sha256="0"),
            graph_sha256="0",
            fingerprint=fingerprint,
        )

    async def start(self) -> None: ...

    async def close(self) -> None: ...

    async def ready(self) -> EngineStatus:
        return self.status

    async def tokens(
        self, images: NDArray[np.uint8], *, model: ModelDescription, priority: Priority = Priority.INSPECT
    ) -> NDArray[np.float32]:
        patches = images[..., 0].reshape(len(images), GRID, PATCH, GRID, PATCH).mean(axis=(2, 4))
        angles = patches.reshape(len(images), GRID * GRID) / 100
        tokens = np.zeros((*angles.shape, _DIM), np.float32)
        tokens[..., 0], tokens[..., 1] = np.cos(angles), np.sin(angles)
        return tokens


def distance(a: float, b: float) -> float:
    """Return the distance of two patches of grey a and b."""
    return 2 * float(np.sin(abs(a - b) / 200))


def image(grey: int, spots: dict[tuple[int, int], int] | None = None, grid: tuple[int, int] = (GRID, GRID)) -> bytes:
    """Return a PNG of one grey, with patches (row, column) of another grey; different pictures have different bytes.

    The image has `grid` rows and columns of patches.

    Two pixels of each patch are brighter and darker than its grey by 17, or less near black and white, so that the mean
    stays: no picture is constant, and most use more than 1/8 of the range.
    """
    pixels = np.full((grid[0] * PATCH, grid[1] * PATCH), grey, np.uint8)
    for (row, column), other in (spots or {}).items():
        pixels[row * PATCH : (row + 1) * PATCH, column * PATCH : (column + 1) * PATCH] = other
    greys = pixels[::PATCH, ::PATCH].copy()
    step = np.minimum(np.minimum(greys, 255 - greys), 17)
    pixels[::PATCH, ::PATCH] += np.where(greys == 0, 1, step).astype(np.uint8)
    pixels[::PATCH, 1::PATCH] -= np.where(greys == 255, 1, step).astype(np.uint8)
    return cv2.imencode(".png", pixels)[1].tobytes()


def sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()
