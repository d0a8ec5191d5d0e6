"""A threshold of the peak that a person gives, and the review band below it."""

from typing import Any

import pytest

from gateway.calibration.calibrate import derive, redone
from gateway.calibration.peak_rule import choose_by_peak, just_above
from gateway.calibration.review_band import review_rate, review_threshold
from gateway.calibration.within_shape import ShapeThresholds
from gateway.errors import InvalidRequestError
from gateway.store.manifest import Calibration
from postprocess.roi_mask import Rect
from tests.gateway.calibration.test_calibrate import SETTINGS, CalibrationRequest, fitted

SCORES = [0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9]
PEAKS = [1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0, 8.0, 9.0]


def derived(n: int = 10, **fields: Any) -> Calibration:
    """Of `fitted`: image i of n has the peak 2 i / n."""
    manifest, maps = fitted(n)
    request = CalibrationRequest(**{"mm_per_px": 1.0, "blur_sigma": 0, "area_mm2_thr": 1.0, **fields})
    return derive(manifest, maps, SETTINGS, request)[0]


def choose(**fields: Any) -> Any:
    return choose_by_peak(SCORES, PEAKS, **{"margin": 0.0, "false_alarm_rate": 0.2, **fields})


def test_both_thresholds_lie_at_a_given_level_and_the_rate_is_that_of_the_level() -> None:
    chosen = choose(given=6.5)
    assert (chosen.peak_threshold, chosen.threshold, chosen.method) == (6.5, 6.5, "given")
    assert (chosen.n_rejected, chosen.ok_above, chosen.n_limits) == (3, 0, 1)


def test_ng_scores_do_not_move_a_given_level_and_the_score_rejects_none_below_p99_of_ok() -> None:
    chosen = choose(given=0.05, ng_scores=[0.2, 0.3], ng_peaks=[4.0, 0.01])
    assert chosen.threshold == pytest.approx(0.892)  # p99 of OK
    assert chosen.missed_ng == (0.3,)  # the peak of the other one rejects it


def test_a_given_level_is_stored_as_given_and_not_computed_again_by_a_fit() -> None:
    calibration = derived(peak_threshold=1.5)
    assert (calibration.pixel_threshold, calibration.pixel_threshold_source) == (1.5, "given")
    assert calibration.verdict_false_alarm_rate == pytest.approx(4 / 11)  # 1.6, 1.8 and 2.0 of ten
    assert (calibration.false_alarm_rate, calibration.guaranteed, calibration.n_ok_needed) == (None, None, None)
    assert redone(*fitted(10), SETTINGS, calibration) is None


def test_an_earlier_gateway_refuses_what_it_would_misread() -> None:
    plain = Calibration.from_bytes(derived().to_bytes(), "calib.json")
    assert (plain.format, plain.review_threshold) == (4, None)
    assert Calibration.from_bytes(derived(peak_threshold=1.5).to_bytes(), "calib.json").format == 5
    banded = derived(review_threshold=0.9)
    assert Calibration.from_bytes(banded.to_bytes(), "calib.json") == banded
    assert banded.format == 5


def test_the_share_of_a_band_leads_back_to_the_same_images() -> None:
    for n_above in range(len(PEAKS)):
        level = just_above(PEAKS[len(PEAKS) - 1 - n_above])
        assert review_threshold(PEAKS, review_rate(PEAKS, level)) == level


def test_a_band_must_lie_below_the_threshold_of_the_peak() -> None:
    with pytest.raises(InvalidRequestError, match=r"review_threshold: 1\.5 is not below peak_threshold, 1\.5"):
        derived(peak_threshold=1.5, review_threshold=1.5)


def test_a_fit_that_computes_the_calibration_again_moves_the_band_with_it() -> None:
    before = derived(10, review_threshold=1.3, false_alarm_rate=0.1)  # peaks of 1.4 to 2.0: four of ten
    assert before.review_rate == pytest.approx(5 / 11)
    after = redone(*fitted(20), SETTINGS, before)
    assert after is not None
    assert after.review_threshold == just_above(1.1)  # 5/11 of 21 is 9.5: nine of 20 lie above
    assert after.pixel_threshold > after.review_threshold


def test_within_another_shape_the_band_keeps_its_share() -> None:
    manifest, maps = fitted(10)
    calibration = derived(10, review_threshold=1.3, false_alarm_rate=0.1)
    thresholds = ShapeThresholds(maps, [image.frame for image in manifest.images])
    stored = thresholds.of(calibration, None, (2, 2), 0, 1)
    within = thresholds.of(calibration, Rect(0.5, None, 1, 2), (2, 2), 0, 1)  # where the maps are half as high
    assert stored is not None
    assert within is not None
    assert stored.review == 1.3
    assert within.review == just_above(0.6)
