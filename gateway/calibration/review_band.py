"""The review band: peaks below the threshold that a person should look at."""

from collections.abc import Sequence

import numpy as np

from gateway.calibration.ok_scores import ok_statistics
from gateway.calibration.peak_rule import just_above
from gateway.calibration.request import CalibrationRequest, Parameters
from gateway.errors import InvalidRequestError
from gateway.store.manifest import CALIBRATION_FORMAT, Calibration
from gateway.store.ok_maps import OkMaps
from postprocess.regions import smallest_area_px


def review_rate(peaks: Sequence[float], review_threshold: float) -> float:
    """Return (x+1)/(n+1), if x of the n OK peaks are at or above the lower end of the band.

    >>> review_rate([0.25, 0.5, 0.75], 0.5)
    0.75
    """
    n_above = int((np.asarray(peaks, np.float32) >= np.float32(review_threshold)).sum())
    return (n_above + 1) / (len(peaks) + 1)


def review_threshold(peaks: Sequence[float], rate: float) -> float:
    """Return the lower end of a band that as large a share of other OK peaks is at or above.

    >>> review_threshold([0.25, 0.5, 0.75, 1.0], 0.4)  # one of four
    0.7500000596046448
    """
    n_above = min(max(round(rate * (len(peaks) + 1)) - 1, 0), len(peaks) - 1)
    return just_above(float(np.sort(np.asarray(peaks, np.float64))[len(peaks) - 1 - n_above]))


def with_review_band(
    calibration: Calibration, ok_maps: OkMaps | None, request: CalibrationRequest, parameters: Parameters
) -> Calibration:
    """Return a calibration with the review band of a request, if it asks for one.

    Args:
        calibration: with its thresholds.
        ok_maps: leave-one-out maps that the thresholds were made of; None if the version has none.
        request: has the lower end of the band or, for a band that is computed again, its share of the OK images. Such
            a band is left out where nothing of it remains below the threshold.
        parameters: what the peaks are computed with.

    Raises:
        InvalidRequestError: the lower end is not below the threshold of the peak.
    """
    level, rate = request.review_threshold, request.review_rate
    if level is None and rate is None:
        return calibration
    if level is not None and level >= calibration.pixel_threshold:
        raise InvalidRequestError(
            f"review_threshold: {level:g} is not below peak_threshold, {calibration.pixel_threshold:.4g}",
            "Send a lower one: the review band lies below the threshold of the peak. Or leave it out.",
        )
    peaks: list[float] = []
    if ok_maps is not None:
        min_area_px = smallest_area_px(parameters.area_mm2_thr, request.mm_per_px)
        _, peaks = ok_statistics(ok_maps, parameters.percentile, parameters.blur_sigma, min_area_px)
    if level is None and rate is not None and peaks:
        level = review_threshold(peaks, rate)
    if level is None or level >= calibration.pixel_threshold:
        return calibration
    return calibration.model_copy(
        update={
            "format": CALIBRATION_FORMAT,
            "review_threshold": level,
            "review_rate": review_rate(peaks, level) if peaks else None,
        }
    )
