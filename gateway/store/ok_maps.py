"""The leave-one-out maps of a version as they are stored."""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray

from postprocess.anomaly_map import ScoreRule
from postprocess.roi_mask import Shape, rasterise


@dataclass(frozen=True, slots=True)
class Frame:
    """The pixel grid of an OK image as sent, and the shape of the part on it."""

    size_wh: tuple[int, int]
    shape: Shape | None = None

    def mask(self) -> NDArray[np.bool_] | None:
        """Return the mask, bool [H, W], or None for the whole image."""
        return None if self.shape is None else rasterise(self.shape, self.size_wh)


@dataclass(frozen=True, slots=True, eq=False)
class OkMaps:
    """Maps of OK images as if they were not learned: distances to the bank without their own centres.

    For a student they are its maps of the validation images.
    """

    distances: NDArray[np.float32]
    """Float32 [I, N], row by row, before the spatial weights."""
    token_hw: tuple[int, int]
    frames: Sequence[Frame]
    """The frames of the I images."""
    weights: NDArray[np.float32] | None = field(default=None)
    """[h, w], the spatial weights of the ROI."""
    rule: ScoreRule = "percentile"
    """How a map is scored."""

    def within(self, shape: Shape | None, size_wh: tuple[int, int]) -> "OkMaps":
        """Return the maps as those of images of one size and shape.

        Args:
            shape: in pixels of an image of that size, or None for the whole image.
            size_wh: `(W, H)` in pixels.
        """
        return replace(self, frames=(Frame(size_wh, shape),) * len(self.frames))

    def mean(self) -> NDArray[np.float32]:
        """Return the mean distance of each token over the images, float32 [h, w], before the spatial weights."""
        return np.asarray(self.distances.mean(axis=0, dtype=np.float64), np.float32).reshape(self.token_hw)

    def spread(self) -> NDArray[np.float32]:
        """Return the standard deviation of each token's distance, float32 [h, w], before the spatial weights."""
        return np.asarray(self.distances.std(axis=0, dtype=np.float64), np.float32).reshape(self.token_hw)
