"""What OK images look like to a detector that has not learned them, and what follows from it."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from gateway.calibration import judge
from postprocess.anomaly_map import ScoreRule, anomaly_map, blur, score_by, upsample
from postprocess.regions import find_regions, px_to_mm2
from postprocess.roi_mask import Shape, rasterise


@dataclass(frozen=True, slots=True)
class Frame:
    """The pixel grid of an OK image as sent, and where on it the part is."""

    size_wh: tuple[int, int]
    shape: Shape | None = None

    def mask(self) -> NDArray[np.bool_] | None:
        """Bool [H, W], or None for the whole image."""
        return None if self.shape is None else rasterise(self.shape, self.size_wh)


@dataclass(frozen=True, slots=True, eq=False)
class OkMaps:
    """Maps of OK images as if not learned: distances to the bank without their own centres, or a student's maps."""

    distances: NDArray[np.float32]
    """[I, N], row by row, before the spatial weights."""
    token_hw: tuple[int, int]
    frames: Sequence[Frame]
    """Of the I images."""
    weights: NDArray[np.float32] | None = field(default=None)
    """[h, w], the spatial weights of the ROI."""
    rule: ScoreRule = "percentile"
    """How a map is scored."""

    def mean(self) -> NDArray[np.float32]:
        """Mean distance of each token over the images, float32 [h, w], before the spatial weights."""
        return np.asarray(self.distances.mean(axis=0, dtype=np.float64), np.float32).reshape(self.token_hw)

    def spread(self) -> NDArray[np.float32]:
        """Standard deviation of each token's distance over the images, float32 [h, w], before the spatial weights."""
        return np.asarray(self.distances.std(axis=0, dtype=np.float64), np.float32).reshape(self.token_hw)

    def scores(self, percentile: float) -> list[float]:
        """Score of each image, as `/infer` defines it."""
        return [score_by(self.rule, full, percentile, mask) for full, mask in self._full()]

    def peaks(self, blur_sigma: float) -> list[float]:
        """Highest value of each image's blurred map inside its mask: where its first region would appear."""
        peaks = []
        for full, mask in self._full():
            blurred = blur(full, blur_sigma)
            peaks.append(float(blurred.max() if mask is None else blurred[mask].max()))
        return peaks

    def n_rejected(
        self,
        *,
        threshold: float,
        pixel_threshold: float,
        percentile: float,
        blur_sigma: float,
        mm_per_px: float,
        area_mm2_thr: float,
    ) -> int:
        """How many of the images `/infer` would call NG, by score or by region."""
        n = 0
        for full, mask in self._full():
            regions = find_regions(blur(full, blur_sigma), pixel_threshold, mm_per_px, area_mm2_thr, mask)
            n += judge(score_by(self.rule, full, percentile, mask), threshold, len(regions))[0] == "ng"
        return n

    def _full(self) -> Iterator[tuple[NDArray[np.float32], NDArray[np.bool_] | None]]:
        """Each image's weighted map at its own size, float32 [H, W], and its mask."""
        for distances, frame in zip(self.distances, self.frames, strict=True):
            grid = anomaly_map(distances, self.token_hw, self.weights)
            yield upsample(grid, frame.size_wh), frame.mask()


def blind_area_mm2(frames: Sequence[Frame], percentile: float, mm_per_px: float) -> float:
    """The largest defect that a percentile of the map cannot see: 1 − p of the mask of the median OK image, in mm².

    Args:
        frames: of the OK images, at least one.
        percentile: of the score, 0–100.
        mm_per_px: side of a pixel in mm.

    Example:
        >>> round(blind_area_mm2([Frame((100, 100))], 99, mm_per_px=0.5), 9)
        25.0
    """
    return px_to_mm2((1 - percentile / 100) * float(np.median([_area_px(frame) for frame in frames])), mm_per_px)


@lru_cache(maxsize=4096)
def _area_px(frame: Frame) -> int:
    mask = frame.mask()
    return frame.size_wh[0] * frame.size_wh[1] if mask is None else int(mask.sum())
