"""Warnings about a calibration: what a person should know before relying on it."""

from collections.abc import Sequence

import numpy as np

from gateway.calibration.ok_scores import blind_area_mm2
from gateway.store.manifest import Calibration, Manifest, OwnSource
from gateway.store.ok_maps import Frame
from postprocess.roi_mask import parse_shape

_SCORES_ARE: dict[OwnSource, str] = {
    "leave-one-out": "leave-one-out scores of images that the bank learned",
    "validation": "those of the validation images, which also ended the training",
}


def peak_rule_warnings(calibration: Calibration, *, n_images: int) -> list[str]:
    """Return what a person should know before relying on a calibration by the peak.

    Args:
        calibration: made by the peak.
        n_images: number of OK images with maps.
    """
    rate, stated = calibration.false_alarm_rate, calibration.verdict_false_alarm_rate
    warnings = []
    if calibration.n_ok_needed:
        warnings.append(
            f"false_alarm_rate: {rate:g} needs {calibration.n_ok_needed} more OK images than the {n_images} there are: "
            "peak_threshold is just above the largest OK peak"
        )
    if rate is not None and stated is not None and stated > rate:
        warnings.append(
            f"false_alarm_rate: {rate:g} was asked for, and {stated:.1%} of good parts are expected to be rejected, "
            f"because {_why_above(calibration)}"
        )
    if calibration.ok_source == "validation" and rate is not None:
        warnings.append(f"false_alarm_rate: {rate:g} holds approximately: the OK peaks are {_SCORES_ARE['validation']}")
    if calibration.missed_ng:
        missed = ", ".join(f"{score:.4g}" for score in calibration.missed_ng)
        warnings.append(
            f"missed_ng: NG images of score {missed} pass by their score, at threshold {calibration.threshold:.4g}; "
            f"only a peak at or above {calibration.pixel_threshold:.4g} rejects such a part. Raise false_alarm_rate, "
            "lower area_mm2_thr, or fit more OK images"
        )
    return warnings


def _why_above(calibration: Calibration) -> str:
    """Return why the verdict rejects more OK images than the rate that was asked for."""
    if calibration.ok_source == "given":
        return f"only {calibration.n_ok} ok_scores were sent. Send more ok_scores, or none"
    if calibration.n_ok_needed:
        return "there are too few OK images. Fit more OK images"
    return "the NG images lower the threshold of the score. Leave out NG images that look like OK ones"


def warnings_by_score(manifest: Manifest, mm_per_px: float, calibration: Calibration) -> list[str]:
    """Return the warnings of a calibration by the score: scale, rate, blind area."""
    warnings = scale_warning(manifest, mm_per_px)
    warnings += _rate_warnings(manifest, calibration)
    warnings += blind_area_warning(manifest, calibration)
    return warnings


def scale_warning(manifest: Manifest, mm_per_px: float) -> list[str]:
    """Warn of another scale than that of the fit."""
    if abs(mm_per_px - manifest.mm_per_px) <= 0.01 * manifest.mm_per_px:
        return []
    return [f"mm_per_px: {mm_per_px:g} here, {manifest.mm_per_px:g} at the fit"]


def unscored_warning(manifest: Manifest, n_stored: int) -> list[str]:
    """Warn of stored images that do not count, because the detector of the version does not score them."""
    if manifest.is_taught or not n_stored:
        return []
    return [
        f"images: stored images ({n_stored} here) do not count: version {manifest.version} is a student-teacher model, "
        "calibrated by its validation images. Inspect the stored images with /infer and send their scores as ok_scores "
        "and ng_scores"
    ]


def swap_warning(ok: Sequence[float], ng: Sequence[float]) -> list[str]:
    """Warn of NG scores that lie below the OK scores on average."""
    if not ng or np.mean(ng) >= np.mean(ok):
        return []
    return [
        f"ng_scores: their mean, {np.mean(ng):.3g}, is below that of the OK scores, {np.mean(ok):.3g}: OK and NG are "
        "probably swapped, and NG images pass at this threshold"
    ]


def _rate_warnings(manifest: Manifest, calibration: Calibration) -> list[str]:
    asked = calibration.false_alarm_rate
    if asked is None:
        return []
    if calibration.method != "conformal":
        return [f"false_alarm_rate: {asked:g} was not used: with NG scores, the threshold lies between OK and NG"]
    if calibration.n_ok_needed:
        return [
            f"false_alarm_rate: {asked:g} needs {calibration.n_ok_needed} more OK scores than the {calibration.n_ok} "
            "there are: the threshold is the largest of these"
        ]
    if not calibration.guaranteed:
        return [
            f"false_alarm_rate: {asked:g} holds approximately, not as a guarantee: the OK scores are "
            f"{_SCORES_ARE[manifest.ok_source]}. For a guarantee, send ok_scores of other images"
        ]
    return []


def blind_area(manifest: Manifest, calibration: Calibration | None) -> float:
    """Return the defect area in mm² that the score cannot see, for the OK image of median size.

    A percentile hides the pixels above it. A mean of the highest values hides none: the area is 0.
    """
    if manifest.score_rule == "top_mean":
        return 0.0
    percentile = manifest.p_score if calibration is None else calibration.score_percentile
    mm_per_px = manifest.mm_per_px if calibration is None else calibration.mm_per_px
    frames = [image.frame for image in manifest.images]
    if calibration is not None and calibration.shape is not None:
        frames = [Frame(frame.size_wh, parse_shape(calibration.shape)[0]) for frame in frames]
    return blind_area_mm2(frames, percentile, mm_per_px)


def blind_area_warning(manifest: Manifest, calibration: Calibration) -> list[str]:
    """Warn if the score cannot see defects that are large enough to count. The peak sees them."""
    hidden = blind_area(manifest, calibration)
    if calibration.pixel_threshold_source == "peak" or hidden <= calibration.area_mm2_thr:
        return []
    return [
        f"score_percentile: {calibration.score_percentile:g} hides defects of up to {hidden:.3g} mm² from the score, "
        f"more than area_mm2_thr, {calibration.area_mm2_thr:g} mm²: only their regions reject them"
    ]
