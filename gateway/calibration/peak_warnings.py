"""Warnings about a calibration by the peak."""

from gateway.store.manifest import Calibration


def peak_rule_warnings(calibration: Calibration, *, n_images: int, n_rejected: int) -> list[str]:
    """Return what a person should know before relying on a calibration by the peak.

    Args:
        calibration: made by the peak.
        n_images: number of OK images with maps.
        n_rejected: number of these that its verdict rejects.
    """
    rate, stated = calibration.false_alarm_rate, calibration.verdict_false_alarm_rate
    warnings = []
    if calibration.n_ok_needed:
        warnings.append(
            f"false_alarm_rate: {rate:g} needs {calibration.n_ok_needed} more OK images than the {n_images} there are: "
            f"peak_threshold is just above the largest OK peak, and {stated:.1%} of good parts may be rejected"
        )
    elif rate is not None and (n_rejected + 1) / (n_images + 1) > rate + 1e-9:
        warnings.append(
            f"false_alarm_rate: {rate:g} was asked for, and score and peak together reject {n_rejected} of {n_images} "
            "OK images: ok_scores lie lower than the leave-one-out scores of the fit; send more of them, or leave them out"
        )
    if calibration.missed_ng:
        missed = ", ".join(f"{score:.4g}" for score in calibration.missed_ng)
        warnings.append(
            f"missed_ng: NG images of score {missed} pass by their score, at threshold {calibration.threshold:.4g}; only "
            f"a peak at or above {calibration.pixel_threshold:.4g} rejects such a part. Raise false_alarm_rate, lower "
            "area_mm2_thr, or fit more OK images"
        )
    return warnings
