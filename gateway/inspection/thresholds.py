"""Which thresholds apply to a request, if any do."""

from dataclasses import dataclass
from typing import Literal

from gateway.calibration.within_shape import ThresholdSource
from gateway.inspection.params import InferParams
from gateway.inspection.request import PreparedRequest
from gateway.settings import Settings
from postprocess.regions import smallest_area_px
from postprocess.verdict import Uncalibrated


@dataclass(frozen=True, slots=True)
class AppliedThresholds:
    """The thresholds that judge an image; all None where the image is not judged."""

    score: float | None = None
    pixels: float | None = None
    """Threshold of regions."""
    review: float | None = None
    """Lower end of the review band; None without one."""
    source: ThresholdSource | None = None
    why_none: Uncalibrated | None = None
    """Why a calibrated ROI does not judge the image."""
    warnings: tuple[str, ...] = ()


def thresholds_of(prepared: PreparedRequest, params: InferParams, settings: Settings) -> AppliedThresholds:
    """Return the thresholds for a request. Blocks.

    A threshold belongs to scores of the same percentile and number of neighbours, within the same pixels; a threshold
    of the peak also to one blur and one smallest area. Where the request has others, the rule of the calibration is
    applied to the OK maps within its shape and with its parameters.

    Args:
        prepared: the request.
        params: the parameters that its score is computed with.
        settings: the defaults.
    """
    request, roi = prepared.request, prepared.roi
    calibration, detector = roi.calibration, roi.loaded.detector
    if calibration is None:
        return AppliedThresholds()
    if params.p_score != calibration.score_percentile:
        return _none("p_score", f"{params.p_score:g} here, {calibration.score_percentile:g} at the calibration")
    k = detector.neighbours(calibration.k or None)[0]
    if params.k != k:
        return _none("k", f"{params.k} here, {k} at the calibration")
    blur_sigma = settings.blur_sigma if calibration.blur_sigma is None else calibration.blur_sigma
    if calibration.pixel_threshold_source == "peak":
        blur_sigma = params.blur_sigma
    min_area_px = smallest_area_px(params.area_mm2_thr, params.mm_per_px)
    found = roi.loaded.thresholds.of(calibration, request.shape, prepared.image.size_wh, blur_sigma, min_area_px)
    if found is None:
        why = "not that of the OK images, and the version has no leave-one-out maps to make thresholds within it from"
        return _none("shape", why)
    warnings = () if found.warning is None else (found.warning,)
    return AppliedThresholds(found.score, found.pixels, found.review, found.source, None, warnings)


def _none(why: Literal["p_score", "k", "shape"], detail: str) -> AppliedThresholds:
    return AppliedThresholds(why_none=why, warnings=(f"{why}: {detail}; the image was not judged",))
