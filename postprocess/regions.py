"""Regions: the connected parts of an anomaly map at or above the threshold, with areas in pixels and mm²."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Final

import cv2
import numpy as np
from numpy.typing import NDArray

# Relative difference up to which an area equals the smallest allowed: 1 mm² at 0.2 mm/px is 25 px, not 24.999….
_ROUNDING = 1e-9
_MOST_PX = 2**62
"""More pixels than an image can have; areas beyond it are that large."""
NEIGHBOURS: Final = 8
"""Connectivity of regions: pixels that touch at a corner belong together."""


@dataclass(frozen=True, slots=True, eq=False)
class Region:
    """One connected anomalous area, in pixels of the map it was found on.

    Attributes:
        bbox: `(x, y, w, h)` of the upright bounding box.
        area_px: number of pixels, without holes.
        area_mm2: the same area in mm².
        contour: int32 `[P, 2]`, the `(x, y)` corners of the outer contour; its pixels belong to the region.
    """

    bbox: tuple[int, int, int, int]
    area_px: int
    area_mm2: float
    contour: NDArray[np.int32]


def mm2_to_px(area_mm2: float, mm_per_px: float) -> float:
    """Convert an area from mm² to pixels, without rounding.

    Raises:
        ValueError: `mm_per_px` is not finite and above 0, or `area_mm2` is not finite and at least 0.

    Example:
        >>> mm2_to_px(2.0, 0.5)
        8.0
    """
    _require_scale(mm_per_px)
    if not 0 <= area_mm2 < math.inf:
        raise ValueError(f"an area of {area_mm2} mm² was given; expected a finite number of at least 0")
    return area_mm2 / mm_per_px / mm_per_px


def smallest_area_px(area_mm2_thr: float, mm_per_px: float) -> int:
    """Return the number of pixels from which a region counts, at least 1.

    An area that differs from the smallest by rounding alone counts: 1 mm² at 0.2 mm/px is 25 px.

    Raises:
        ValueError: as `mm2_to_px`.

    Example:
        >>> smallest_area_px(1.0, 0.2), smallest_area_px(1.01, 0.2), smallest_area_px(0, 0.2)
        (25, 26, 1)
    """
    return max(1, math.ceil(min(_MOST_PX, mm2_to_px(area_mm2_thr, mm_per_px) * (1 - _ROUNDING))))


def px_to_mm2(area_px: float, mm_per_px: float) -> float:
    """Convert an area from pixels to mm².

    Raises:
        ValueError: `mm_per_px` is not finite and above 0.

    Example:
        >>> px_to_mm2(8, 0.5)
        2.0
    """
    _require_scale(mm_per_px)
    return area_px * mm_per_px * mm_per_px


def find_regions(
    anomaly_map: NDArray[np.float32],
    threshold: float,
    mm_per_px: float,
    area_mm2_thr: float,
    mask: NDArray[np.bool_] | None = None,
) -> list[Region]:
    """Find the 8-connected regions of pixels at or above the threshold, without those that are too small.

    Args:
        anomaly_map: float32 `[H, W]`, blurred.
        threshold: in the map's unit; it is compared in float32, as the map is.
        mm_per_px: side of a pixel in mm.
        area_mm2_thr: smallest area in mm²: a region is dropped if `area_px < area_mm2_thr / mm_per_px²`,
            see `smallest_area_px`.
        mask: bool `[H, W]`; pixels outside belong to no region.

    Returns:
        The regions, largest first; regions of equal area from top to bottom, then from left to right.

    Raises:
        ValueError: a number is out of range, the mask has another shape, or the map or the threshold is NaN.

    Example:
        >>> spots = np.array([[9, 9, 0, 0], [0, 0, 0, 9]], np.float32)
        >>> [(region.bbox, region.area_mm2) for region in find_regions(spots, 5, mm_per_px=2.0, area_mm2_thr=0)]
        [((0, 0, 2, 1), 8.0), ((3, 1, 1, 1), 4.0)]
    """
    smallest_px = smallest_area_px(area_mm2_thr, mm_per_px)
    if mask is not None and mask.shape != anomaly_map.shape:
        raise ValueError(f"mask has shape {mask.shape}; the anomaly map is {anomaly_map.shape}")
    peak = anomaly_map.max()
    # NaN is neither above nor below the threshold; it must not count as OK.
    if math.isnan(peak) or math.isnan(threshold):
        raise ValueError("the anomaly map or the threshold is NaN; regions cannot be found")
    with np.errstate(over="ignore"):
        level = np.float32(threshold)
    if peak < level:
        return []

    above = anomaly_map >= level
    if mask is not None:
        above &= mask
    # Labelling costs time per pixel, and anomalies are usually small: only the box around them is labelled.
    left, top, width, height = cv2.boundingRect(above.view(np.uint8))
    # OpenCV crashes on an empty image.
    if width == 0:
        return []
    box = above[top : top + height, left : left + width]
    labels, stats = _labelled(box)
    areas = stats[:, cv2.CC_STAT_AREA]
    kept = [int(label) for label in np.flatnonzero(areas >= smallest_px) if label != 0]
    kept.sort(key=lambda label: (-areas[label], stats[label, cv2.CC_STAT_TOP], stats[label, cv2.CC_STAT_LEFT]))
    regions = []
    for label in kept:
        x, y, w, h, area_px = stats[label].tolist()
        itself = (labels[y : y + h, x : x + w] == label).view(np.uint8)
        x, y = left + x, top + y
        (contour,), _ = cv2.findContours(itself, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_SIMPLE, offset=(x, y))
        area_mm2 = px_to_mm2(area_px, mm_per_px)
        regions.append(Region((x, y, w, h), area_px, area_mm2, contour.reshape(-1, 2).astype(np.int32, copy=False)))
    return regions


def _labelled(box: NDArray[np.bool_]) -> tuple[NDArray[np.int32], NDArray[np.int32]]:
    """Return the label of each pixel, int32 [h, w], and OpenCV's statistics of each label, int32 [n, 5].

    The statistics take most of the time, and one region that fills the box needs none.

    Args:
        box: bool [h, w], the bounding box of all regions.
    """
    pixels = box.view(np.uint8)
    n, labels = cv2.connectedComponents(pixels, connectivity=NEIGHBOURS)
    if n == 2:
        height, width = box.shape
        of_background, area_px = (0, 0, width, height, 0), cv2.countNonZero(pixels)
        return np.asarray(labels, np.int32), np.array([of_background, (0, 0, width, height, area_px)], np.int32)
    _, labels, stats, _ = cv2.connectedComponentsWithStatsWithAlgorithm(pixels, NEIGHBOURS, cv2.CV_32S, cv2.CCL_GRANA)
    return np.asarray(labels, np.int32), np.asarray(stats, np.int32)


def bounded(regions: Sequence[Region], max_regions: int, max_points: int) -> tuple[list[Region], list[str]]:
    """Limit the number of regions in an answer and the number of points in their contours.

    The largest regions are kept. If their contours have too many points together, the longest contours are simplified
    to an equal number of points by the Douglas-Peucker algorithm, with the smallest sufficient tolerance of 0.5 px
    times a power of two. Boxes and areas do not change.

    Args:
        regions: largest first.
        max_regions: largest number of regions.
        max_points: largest number of points of all contours together; at least 4 for each region kept.

    Returns:
        The regions, and warnings about what was left out.

    Example:
        >>> ring = np.array([[x, (x * x) // 9] for x in range(10)], np.int32)
        >>> kept, said = bounded([Region((0, 0, 10, 10), 60, 60.0, ring)] * 2, max_regions=1, max_points=4)
        >>> len(kept), len(kept[0].contour) <= 4, said[0]
        (1, True, 'regions: 2 were found, the answer holds the 1 largest')
    """
    warnings = []
    kept = list(regions[:max_regions])
    if len(kept) < len(regions):
        warnings.append(f"regions: {len(regions)} were found, the answer holds the {len(kept)} largest")
    lengths = sorted(len(region.contour) for region in kept)
    total = sum(lengths)
    if total <= max_points:
        return kept, warnings
    longest = _equal_share(lengths, max_points)
    coarsest = 0.0
    for i, region in enumerate(kept):
        if len(region.contour) > longest:
            contour, tolerance = _coarser(region.contour, longest)
            kept[i] = replace(region, contour=contour)
            coarsest = max(coarsest, tolerance)
    warnings.append(
        f"contours: {total} points, at most {max_points} are sent: the longest were simplified to within "
        f"{coarsest:g} px"
    )
    return kept, warnings


def _equal_share(lengths: Sequence[int], total: int) -> int:
    """Return the largest number of points per contour that keeps the total; `lengths` ascending."""
    left = total
    for i, length in enumerate(lengths):
        share = left // (len(lengths) - i)
        if length > share:
            return share
        left -= length
    return left


def _coarser(contour: NDArray[np.int32], max_points: int) -> tuple[NDArray[np.int32], float]:
    tolerance = 0.5
    while True:
        fewer = cv2.approxPolyDP(contour, tolerance, closed=True)
        if len(fewer) <= max_points:
            return fewer.reshape(-1, 2).astype(np.int32, copy=False), tolerance
        tolerance *= 2


def _require_scale(mm_per_px: float) -> None:
    if not 0 < mm_per_px < math.inf:
        raise ValueError(f"mm_per_px is {mm_per_px}; expected a finite number above 0")
