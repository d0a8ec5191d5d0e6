"""The peak of an anomaly map: the highest level at which a region that is large enough to count survives."""

import math

import cv2
import numpy as np
from numpy.typing import NDArray

from postprocess.regions import NEIGHBOURS

_MORE = 8
"""Factor by which the number of pixels looked at grows while they hold no component that is large enough."""


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
    counted = blurred if mask is None else np.where(mask, blurred, np.float32(-np.inf))
    # A component of n pixels has no level above the n-th highest value. Smooth maps have few maxima, so that the
    # level is hardly ever far below it.
    n = min_area_px
    while n <= counted.size:
        n = min(counted.size, _MORE * n)
        highest = np.partition(counted, counted.size - n, axis=None)[counted.size - n :]
        found = _within(counted, np.unique(highest[highest > -np.inf]), min_area_px)
        if found is not None or n == counted.size:
            return -math.inf if found is None else float(found)
    return -math.inf


def reaches(level: float, threshold: float) -> bool:
    """Return whether a peak is at or above a threshold, compared in float32 as `find_regions` compares.

    Example:
        >>> reaches(0.5, 0.5), reaches(0.5, 0.6)
        (True, False)
    """
    with np.errstate(over="ignore"):
        return bool(np.float32(level) >= np.float32(threshold))


def _within(counted: NDArray[np.float32], levels: NDArray[np.float32], smallest: int) -> np.float32 | None:
    """Return the highest of some ascending levels at which a component is large enough, or None if none has one."""
    if levels.size == 0:
        return None
    above = counted >= levels[0]
    left, top, width, height = cv2.boundingRect(above.view(np.uint8))
    box = counted[top : top + height, left : left + width]
    _, labels, stats, _ = cv2.connectedComponentsWithStats(
        above[top : top + height, left : left + width].view(np.uint8), connectivity=NEIGHBOURS
    )
    # Each component is searched within its own small box, the one with the highest possible level first.
    bounds = []
    for label in np.flatnonzero(stats[:, cv2.CC_STAT_AREA] >= smallest):
        if label == 0:
            continue
        x, y, w, h, area = stats[label]
        itself = np.where(labels[y : y + h, x : x + w] == label, box[y : y + h, x : x + w], np.float32(-np.inf))
        highest = np.sort(itself, axis=None)[-area:]
        bounds.append((highest[-smallest], highest, itself))
    bounds.sort(key=lambda bound: -bound[0])
    best: np.float32 | None = None
    for bound, highest, itself in bounds:
        if best is not None and bound <= best:
            break
        own = np.unique(highest[highest <= bound])
        if best is not None:
            own = own[own > best]
            if not _has_component(itself, own[0], smallest):
                continue
        best = _highest_of(itself, own, smallest)
    return best


def _highest_of(itself: NDArray[np.float32], levels: NDArray[np.float32], smallest: int) -> np.float32:
    """Return the highest of some ascending levels with a component; the first has one."""
    if _has_component(itself, levels[-1], smallest):
        return np.float32(levels[-1])
    low, high = 0, len(levels) - 1
    while high - low > 1:
        middle = (low + high) // 2
        if _has_component(itself, levels[middle], smallest):
            low = middle
        else:
            high = middle
    return np.float32(levels[low])


def _has_component(itself: NDArray[np.float32], level: np.float32, smallest: int) -> bool:
    above = (itself >= level).view(np.uint8)
    stats = cv2.connectedComponentsWithStats(above, connectivity=NEIGHBOURS)[2]
    return bool((stats[1:, cv2.CC_STAT_AREA] >= smallest).any())
