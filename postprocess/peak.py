"""The peak of an anomaly map: the highest level at which a region that is large enough to count survives."""

import math
from collections.abc import Iterator

import cv2
import numpy as np
from numpy.typing import NDArray

from postprocess.regions import NEIGHBOURS

_SAMPLE = 2048
"""Pixels from which the level to start at is estimated, about."""
_MORE = 4
"""Factor by which the pixels looked at grow while they hold no component that is large enough."""


def peak(blurred: NDArray[np.float32], mask: NDArray[np.bool_] | None, min_area_px: int) -> float:
    """Return the highest level t at which the pixels at or above t have a connected component of the smallest area.

    It is the maximum of the area opening of the map (Vincent, "Morphological area openings and closings for grey-scale
    images", 1993). It is one of the map's values, so that it is exact: `find_regions` finds a region at a threshold
    if and only if `reaches(peak, threshold)`. With a smallest area of 1 it is the maximum of the map. The regions that
    `find_regions` finds at the peak itself are those that the peak is the level of.

    Args:
        blurred: float32 `[H, W]`, the blurred map.
        mask: bool `[H, W]`, the pixels that count; all of them if None.
        min_area_px: smallest number of 8-connected pixels, at least 1; see `smallest_area_px`.

    Returns:
        A value of the map, in the map's unit. `-inf` if no component of that size fits into the mask: no threshold has
        a region.

    Raises:
        ValueError: the map holds NaN, the mask has another shape, or the smallest area is below 1.

    Example:
        >>> spots = np.array([[9, 0, 5, 6], [0, 0, 4, 7]], np.float32)
        >>> peak(spots, None, 1), peak(spots, None, 2), peak(spots, None, 3)
        (9.0, 6.0, 5.0)
    """
    if min_area_px < 1:
        raise ValueError(f"min_area_px is {min_area_px}; expected at least 1")
    if mask is not None and mask.shape != blurred.shape:
        raise ValueError(f"mask has shape {mask.shape}; the anomaly map is {blurred.shape}")
    if math.isnan(blurred.max(initial=-math.inf)):
        raise ValueError("the anomaly map holds NaN; it has no peak")
    # Smooth maps have few maxima: the highest pixels, a few times the smallest area, hold such a component almost
    # always. Where they begin is estimated from a sample. Only the time depends on the estimate.
    step = max(1, math.isqrt(blurred.size // _SAMPLE))
    sample = np.sort(
        blurred[::step, ::step] if mask is None else blurred[::step, ::step][mask[::step, ::step]], axis=None
    )
    rank = 1 + _MORE * min_area_px // step**2
    while rank < sample.size:
        found = _above(blurred, mask, sample[-rank], min_area_px)
        if found is not None:
            return found
        rank *= _MORE
    found = _above(blurred, mask, np.float32(-np.inf), min_area_px)
    return -math.inf if found is None else found


def peak_xy(
    blurred: NDArray[np.float32], mask: NDArray[np.bool_] | None, min_area_px: int, level: float
) -> tuple[int, int]:
    """Return the highest pixel `(x, y)` of the components that the peak is the level of.

    Args:
        blurred: float32 `[H, W]`, the map that the peak was computed from.
        mask: bool `[H, W]`, as for `peak`.
        min_area_px: as for `peak`.
        level: the peak. With `-inf`, where no component is large enough, the highest pixel inside the mask is returned.

    Example:
        >>> spots = np.array([[9, 0, 5, 6], [0, 0, 4, 7]], np.float32)
        >>> peak_xy(spots, None, 1, 9), peak_xy(spots, None, 2, 6)
        ((0, 0), (3, 1))
    """
    counted = blurred >= np.float32(level)
    if mask is not None:
        counted &= mask
    _, labels, stats, _ = cv2.connectedComponentsWithStats(counted.view(np.uint8), connectivity=NEIGHBOURS)
    large = stats[:, cv2.CC_STAT_AREA] >= min_area_px
    large[0] = False
    if large.any():
        counted &= large[labels]
    y, x = divmod(int(np.where(counted, blurred, np.float32(-np.inf)).argmax()), blurred.shape[1])
    return x, y


def reaches(level: float, threshold: float) -> bool:
    """Return whether a peak is at or above a threshold, compared in float32 as `find_regions` compares.

    Example:
        >>> reaches(0.5, 0.5), reaches(0.5, 0.6)
        (True, False)
    """
    with np.errstate(over="ignore"):
        return bool(np.float32(level) >= np.float32(threshold))


def _above(
    blurred: NDArray[np.float32], mask: NDArray[np.bool_] | None, floor: np.float32, smallest: int
) -> float | None:
    """Return the peak if it is at or above a level, else None."""
    above = blurred >= floor
    if mask is not None:
        above &= mask
    left, top, width, height = cv2.boundingRect(above.view(np.uint8))
    if width * height < smallest:  # OpenCV crashes on an empty image
        return None
    rows, columns = slice(top, top + height), slice(left, left + width)
    # Each component is searched within its own small box, the one with the highest bound first.
    parts = sorted(_parts(blurred[rows, columns], above[rows, columns], smallest), key=lambda part: -part[0])
    best = None
    for bound, part in parts:
        if best is not None and bound <= best:
            break
        best = _highest(part, bound, best, smallest)
    return best


def _parts(
    box: NDArray[np.float32], above: NDArray[np.bool_], smallest: int
) -> Iterator[tuple[float, NDArray[np.float32]]]:
    """Yield the components that are large enough: the bound of their level, and their values, `-inf` outside.

    A component of n pixels has no level above the n-th highest value.
    """
    _, labels, stats, _ = cv2.connectedComponentsWithStats(above.view(np.uint8), connectivity=NEIGHBOURS)
    for label in np.flatnonzero(stats[1:, cv2.CC_STAT_AREA] >= smallest) + 1:
        x, y, w, h = stats[label, :4]
        rows, columns = slice(y, y + h), slice(x, x + w)
        part = np.where(labels[rows, columns] == label, box[rows, columns], np.float32(-np.inf))
        yield float(np.sort(part, axis=None)[-smallest]), part


def _highest(part: NDArray[np.float32], bound: float, best: float | None, smallest: int) -> float | None:
    """Return the highest level of a component, or the best level so far if that is higher."""
    levels = np.unique(part[(part <= bound) & (part > (-np.inf if best is None else best))])
    low, high = -1 if best is not None else 0, len(levels)  # a component at `low`, none at `high`
    middle = high - 1
    while high - low > 1:
        at = part >= levels[middle]
        areas = cv2.connectedComponentsWithStats(at.view(np.uint8), connectivity=NEIGHBOURS)[2][1:, cv2.CC_STAT_AREA]
        if (areas >= smallest).any():
            low = middle
        else:
            high = middle
        middle = (low + high) // 2
    return best if low < 0 else float(levels[low])
