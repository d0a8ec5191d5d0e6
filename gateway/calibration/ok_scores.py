"""Scores and peaks of the leave-one-out maps of OK images, and how many of them a threshold rejects."""

from collections.abc import Iterator, Sequence
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from gateway.store.ok_maps import Frame, OkMaps
from postprocess.anomaly_map import blur, scored_map
from postprocess.peak import peak
from postprocess.regions import find_regions, px_to_mm2
from postprocess.verdict import judge


def ok_scores(maps: OkMaps, percentile: float) -> list[float]:
    """Return the score of each OK image, as `/infer` computes it, in the order of the images."""
    return [score for _, score, _ in _scored(maps, percentile)]


def ok_statistics(
    maps: OkMaps, percentile: float, blur_sigma: float, min_area_px: int
) -> tuple[list[float], list[float]]:
    """Return the scores and the peaks of the OK images, as `/infer` computes them, in the order of the images.

    Args:
        maps: leave-one-out maps.
        percentile: percentile of the map that is the score.
        blur_sigma: sigma of the blur, in pixels.
        min_area_px: smallest region that counts, in pixels.
    """
    scores, peaks = [], []
    for full, score, mask in _scored(maps, percentile):
        scores.append(score)
        peaks.append(peak(blur(full, blur_sigma), mask, min_area_px))
    return scores, peaks


def ok_peaks(maps: OkMaps, blur_sigma: float) -> list[float]:
    """Return the highest value of each blurred map inside its mask. Its first region appears at this level."""
    return ok_statistics(maps, 100, blur_sigma, 1)[1]


def n_rejected(
    maps: OkMaps,
    *,
    threshold: float,
    pixel_threshold: float,
    percentile: float,
    blur_sigma: float,
    mm_per_px: float,
    area_mm2_thr: float,
) -> int:
    """Return the number of OK images that `/infer` would reject, by their score or by a region."""
    n = 0
    for full, score, mask in _scored(maps, percentile):
        regions = find_regions(blur(full, blur_sigma), pixel_threshold, mm_per_px, area_mm2_thr, mask)
        n += judge(score, threshold, len(regions))[0] == "ng"
    return n


def _scored(maps: OkMaps, percentile: float) -> Iterator[tuple[NDArray[np.float32], float, NDArray[np.bool_] | None]]:
    """Yield the weighted map of each image at the size of the image, float32 [H, W], its score and its mask."""
    drawn, mask = None, None
    for distances, frame in zip(maps.distances, maps.frames, strict=True):
        if frame != drawn:  # most images have the frame of the one before
            drawn, mask = frame, frame.mask()
        full, score = scored_map(
            distances,
            maps.token_hw,
            frame.size_wh,
            weights=maps.weights,
            rule=maps.rule,
            percentile=percentile,
            mask=mask,
        )
        yield full, score, mask


def blind_area_mm2(frames: Sequence[Frame], percentile: float, mm_per_px: float) -> float:
    """Return the area of the largest defect that a percentile of the map cannot see, in mm².

    It is the share 1 − p of the mask of the OK image of median size.

    Args:
        frames: frames of the OK images, at least one.
        percentile: percentile of the map that is the score, 0–100.
        mm_per_px: side of a pixel in mm.

    >>> round(blind_area_mm2([Frame((100, 100))], 99, mm_per_px=0.5), 9)
    25.0
    """
    return px_to_mm2((1 - percentile / 100) * float(np.median([_area_px(frame) for frame in frames])), mm_per_px)


@lru_cache(maxsize=4096)
def _area_px(frame: Frame) -> int:
    mask = frame.mask()
    return frame.size_wh[0] * frame.size_wh[1] if mask is None else int(mask.sum())
