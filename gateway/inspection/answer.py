"""From the tokens of one image to its answer: distances, anomaly map, score, regions, verdict."""

import math
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from gateway.calibration.within_shape import ThresholdSource
from gateway.images.masks import mask_of
from gateway.inspection.answer_warnings import WEIGHTS_STALE, warnings_of
from gateway.inspection.explanation import Explainer, Explanation
from gateway.inspection.heatmap_files import HeatmapFiles
from gateway.inspection.params import InferParams, params_of
from gateway.inspection.request import PreparedRequest
from gateway.inspection.thresholds import thresholds_of
from gateway.monitoring.timing import StageTimes
from gateway.settings import Settings
from gateway.store.roi_key import RoiKey
from postprocess.anomaly_map import blur, scored_map
from postprocess.heatmap import encode_heatmap
from postprocess.peak import peak, peak_xy, reaches
from postprocess.regions import Region, bounded, find_regions, smallest_area_px
from postprocess.verdict import Verdict, VerdictReason, judge


@dataclass(frozen=True, slots=True)
class Inspection:
    """The answer for one image. All pixels are those of the image as sent, upright."""

    key: RoiKey
    score: float
    threshold: float | None
    peak: float | None
    """The highest level at which a region of the smallest area survives; None if no such region fits."""
    peak_threshold: float | None
    """The image has a region exactly if its peak is at or above it."""
    review_threshold: float | None
    """An image that is not NG goes to review if its peak is at or above it; None without a review band."""
    threshold_source: ThresholdSource | None
    verdict: Verdict
    verdict_reason: VerdictReason | None
    calibration_stale: bool
    weights_stale: bool
    degraded: bool
    """Whether an older version or a copy answers because the data in use is damaged."""
    regions: list[Region]
    heatmap_png: bytes | None
    heatmap_path: str | None
    heatmap_max: float
    image_size: tuple[int, int]
    """Width and height."""
    token_hw: tuple[int, int]
    params: InferParams
    version: int
    times: StageTimes
    explanation: Explanation | None = None
    """None unless the request asks for it; else None where there is nothing to show, and `warnings` says why."""
    warnings: list[str] = field(default_factory=list)


def answer(
    prepared: PreparedRequest,
    tokens: NDArray[np.float32],
    settings: Settings,
    heatmaps: HeatmapFiles,
    explainer: Explainer,
    *,
    weights_stale: bool,
) -> Inspection:
    """Judge an image by its tokens. Blocks.

    Args:
        prepared: the request.
        tokens: float32 [N, D], as the engine returns them for the image.
        settings: defaults and limits.
        explainer: explains the answer where the request asks for it.
        heatmaps: where the heatmap goes for ``heatmap=path``.
        weights_stale: whether the spatial weights changed since the fit.

    Raises:
        StorageFullError: the heatmap cannot be written.
    """
    request, roi, times = prepared.request, prepared.roi, prepared.times
    manifest, calibration, detector = roi.loaded.manifest, roi.calibration, roi.loaded.detector
    k, k_warnings = detector.neighbours(request.k)
    params = params_of(prepared, k, settings)
    shows_nothing = prepared.image.nothing_shown is not None
    warnings = [*request.warnings, *prepared.image.warnings, *k_warnings, *warnings_of(prepared, params)]
    if weights_stale:
        warnings.append(WEIGHTS_STALE)
    with times.stage("knn"):
        distances = detector.distances(tokens, k)
    with times.stage("postprocess"):
        mask = None if request.shape is None else mask_of(request.shape, prepared.image.size_wh)
        full, score = scored_map(
            distances,
            manifest.token_hw,
            prepared.image.size_wh,
            weights=roi.loaded.weights,
            rule=manifest.score_rule,
            percentile=params.p_score,
            mask=mask,
        )
        blurred = blur(full, params.blur_sigma)
        thresholds = thresholds_of(prepared, params, settings)
        min_area_px = smallest_area_px(params.area_mm2_thr, request.mm_per_px)
        level = peak(blurred, mask, min_area_px)
        regions: list[Region] = []
        if thresholds.pixels is not None and not shows_nothing and reaches(level, thresholds.pixels):
            regions = find_regions(blurred, thresholds.pixels, request.mm_per_px, params.area_mm2_thr, mask)
        png = None if request.heatmap == "none" else encode_heatmap(blurred, manifest.heatmap_max, mask)
        path = None
        if png is not None and request.heatmap == "path":
            path, png = heatmaps.write(request.key, png), None
    explanation = None
    if request.explain:
        with times.stage("explain"):
            peak_at = peak_xy(blurred, mask, min_area_px, level)
            explanation, said = explainer.explain(prepared, tokens, peak_at)
            warnings += said
    verdict, reason = judge(
        score,
        thresholds.score,
        len(regions),
        shows_nothing=shows_nothing,
        uncalibrated=thresholds.why_none,
        in_review_band=thresholds.review is not None and reaches(level, thresholds.review),
    )
    regions, left_out = bounded(regions, settings.max_regions, settings.max_contour_points)
    return Inspection(
        key=request.key,
        score=score,
        threshold=thresholds.score,
        peak=level if math.isfinite(level) else None,
        peak_threshold=thresholds.pixels,
        review_threshold=thresholds.review,
        threshold_source=thresholds.source,
        verdict=verdict,
        verdict_reason=reason,
        calibration_stale=calibration is not None and calibration.is_stale(manifest),
        weights_stale=weights_stale,
        degraded=roi.is_degraded,
        regions=regions,
        heatmap_png=png,
        heatmap_path=path,
        heatmap_max=manifest.heatmap_max,
        image_size=prepared.image.size_wh,
        token_hw=manifest.token_hw,
        params=params,
        version=manifest.version,
        times=times,
        explanation=explanation,
        warnings=[*warnings, *thresholds.warnings, *left_out],
    )
