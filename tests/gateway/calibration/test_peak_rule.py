"""Both thresholds of the peak rule, from scores and peaks that a person can check by eye."""

import math
from typing import Any

import numpy as np
import pytest

from gateway.calibration.calibrate import derive, redone
from gateway.calibration.calibration_warnings import peak_rule_warnings
from gateway.calibration.false_alarms import false_alarms
from gateway.calibration.peak_rule import choose_by_peak, just_above
from gateway.calibration.within_shape import ShapeThresholds
from gateway.store.checksummed import unsealed
from gateway.store.manifest import CALIBRATION, Calibration
from gateway.store.ok_maps import Frame
from postprocess.roi_mask import Rect
from tests.gateway.calibration.test_calibrate import SETTINGS, CalibrationRequest, fitted

SCORES = [0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9]
PEAKS = [1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0, 8.0, 9.0]


def choose(scores: list[float] = SCORES, peaks: list[float] = PEAKS, **fields: Any) -> Any:
    return choose_by_peak(scores, peaks, **{"margin": 0.0, "false_alarm_rate": 0.2, **fields})


def derived(n: int = 10, **fields: Any) -> tuple[Calibration, list[str]]:
    manifest, maps = fitted(n)
    return derive(manifest, maps, SETTINGS, CalibrationRequest(**{"mm_per_px": 1.0, **fields}))


def test_the_threshold_of_the_peak_is_just_above_the_peak_of_conformal_rank() -> None:
    chosen = choose()
    assert chosen.peak_threshold == just_above(8.0)  # rank ⌈10 × 0.8⌉ = 8
    assert (chosen.n_rejected, chosen.n_ok_needed, chosen.method) == (1, 0, "conformal")


def test_with_too_few_ok_images_it_is_just_above_the_largest_peak_and_says_how_many_are_missing() -> None:
    chosen = choose(false_alarm_rate=0.02)
    assert chosen.peak_threshold == just_above(9.0)
    assert chosen.n_ok_needed == 40  # 49 of 9


def test_where_no_region_fits_the_score_decides_at_the_same_rate() -> None:
    chosen = choose(peaks=[-math.inf] * 9)
    assert chosen.threshold == pytest.approx(np.percentile(SCORES, 99))  # rank 8 is 0.8; p99 of OK is higher
    assert chosen.peak_threshold == just_above(0.8)
    assert choose(scores=[0.1] * 8 + [0.9], peaks=[-math.inf] * 9, false_alarm_rate=0.02).threshold == 0.9


def test_the_score_lies_at_the_level_of_the_peak_and_rejects_no_ok_image_of_its_own() -> None:
    chosen = choose([0.1, 0.2, 0.9, 0.3, 0.4, 0.5, 0.6, 0.7, 0.55])
    assert (chosen.threshold, chosen.peak_threshold) == (8.0, just_above(8.0))
    assert (chosen.n_rejected, chosen.ok_above, chosen.n_limits) == (1, 0, 1)


def test_an_ok_image_that_its_score_rejects_counts_in_the_same_rank() -> None:
    # The first image has the lowest peak and a score above every peak: it uses up the one rejection that α allows.
    chosen = choose([20.0, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9], margin=-20.0)
    assert (chosen.threshold, chosen.peak_threshold) == (9.0, just_above(9.0))
    assert chosen.n_rejected == 1


@pytest.mark.parametrize("ng", [[0.05], [0.45], [0.85], [0.88], [1.5], [0.3, 2.0], [9.0, 9.5, 10.0], [0.9, 0.9, 0.9]])
def test_ng_scores_never_raise_a_threshold(ng: list[float]) -> None:
    without, with_ng = choose(), choose(ng_scores=ng)
    assert with_ng.threshold <= without.threshold
    assert with_ng.peak_threshold == without.peak_threshold
    assert with_ng.n_rejected <= 1  # as α allows


def test_an_ng_image_between_the_ok_scores_and_the_level_lowers_the_threshold_below_it() -> None:
    # The peak rejects the image of score 0.9 already, so the threshold may come down to the next one, 0.8.
    without, with_ng = choose(), choose(ng_scores=[0.89])
    assert without.threshold == 8.0
    assert 0.8 <= with_ng.threshold < 0.89
    assert with_ng.missed_ng == ()
    # Now an unseen OK image may exceed either threshold.
    assert (with_ng.n_rejected, with_ng.n_limits) == (1, 2)


def test_a_second_threshold_adds_its_share_to_the_rate() -> None:
    assert false_alarms(1, 9, n_limits=2).rate == pytest.approx(3 / 10)
    assert false_alarms(1, 9, n_limits=2).low == false_alarms(1, 9).low
    assert false_alarms(1, 9, n_limits=2).high == false_alarms(2, 9).high
    assert false_alarms(9, 9, n_limits=2).rate == 1


def test_an_ng_image_that_passes_is_named() -> None:
    assert choose(ng_scores=[0.4, 2.0]).missed_ng == (0.4,)
    # Its peak is known and rejects it.
    assert choose(ng_scores=[0.4, 2.0], ng_peaks=[9.5, 0.0]).missed_ng == ()
    assert choose(ng_scores=[0.4, 2.0], ng_peaks=[8.0, 0.0]).missed_ng == (0.4,)
    calibration, warnings = derived(ng_scores=[0.05])
    assert calibration.missed_ng == (0.05,)
    assert any("0.05 pass by their score" in each for each in warnings)


def test_given_scores_of_unseen_images_replace_those_of_the_fit_for_the_score_alone() -> None:
    chosen = choose(given_scores=[0.3] * 4 + [0.5])
    assert (chosen.threshold, chosen.n_ok) == (0.5, 5)
    assert chosen.peak_threshold == just_above(8.0)


def test_the_default_calibration_states_the_rate_of_the_verdict() -> None:
    # Image i of 60 has a pixel of i / 30, of 1 mm².
    calibration, warnings = derived(60)
    assert (calibration.pixel_threshold_source, calibration.false_alarm_rate) == ("peak", 0.02)
    assert calibration.pixel_threshold == just_above(2.0)  # rank ⌈61 × 0.98⌉ = 60
    assert calibration.verdict_false_alarm_rate == pytest.approx(1 / 61)
    assert calibration.verdict_false_alarm_interval is not None
    assert calibration.verdict_false_alarm_interval[0] == 0
    assert warnings == []
    calibration, _ = derived(60, false_alarm_rate=0.1)
    assert calibration.pixel_threshold == just_above(2 * 55 / 60)
    assert calibration.verdict_false_alarm_rate == pytest.approx(6 / 61)


def test_the_smallest_area_decides_which_level_is_the_peak() -> None:
    # A region of two pixels reaches down to the three equal ones, i / 60: the score, p99 of four pixels, is higher.
    calibration, _ = derived(60, area_mm2_thr=2.0)
    assert calibration.pixel_threshold == just_above(1.97)
    assert max(calibration.ok_peaks) == 1


def test_a_redone_calibration_keeps_its_rate_and_rule() -> None:
    before, _ = derived(60, false_alarm_rate=0.1)
    manifest, maps = fitted(30)
    after = redone(manifest, maps, SETTINGS, before)
    assert after is not None
    assert (after.pixel_threshold_source, after.false_alarm_rate) == ("peak", 0.1)
    assert after.pixel_threshold == just_above(2 * 28 / 30)  # rank ⌈31 × 0.9⌉ = 28


def test_a_calibration_by_the_peak_is_not_read_by_a_gateway_that_cannot_judge_by_it() -> None:
    by_peak, _ = derived()
    assert by_peak.to_bytes() != derived(pixel_threshold="score")[0].to_bytes()
    assert Calibration.from_bytes(by_peak.to_bytes(), CALIBRATION).format == 4
    with pytest.raises(Exception, match="format 4"):
        unsealed(by_peak.to_bytes(), CALIBRATION, 3)
    assert Calibration.from_bytes(derived(pixel_threshold="score")[0].to_bytes(), CALIBRATION).format == 2


def test_a_request_with_another_blur_or_smallest_area_is_judged_by_the_ok_maps_with_these() -> None:
    _, maps = fitted(60)
    calibration, _ = derived(60)
    thresholds = ShapeThresholds(maps, maps.frames)
    stored = thresholds.of(calibration, None, (2, 2), 0, 1)
    assert stored is not None
    assert (stored.pixels, stored.source) == (just_above(2.0), "calibration")
    larger = thresholds.of(calibration, None, (2, 2), 0, 2)
    assert larger is not None
    assert (larger.pixels, larger.source) == (just_above(1.97), "parameters")
    blurred = thresholds.of(calibration, None, (2, 2), 1.0, 1)
    assert blurred is not None
    assert blurred.pixels < stored.pixels
    larger_image = thresholds.of(calibration, None, (4, 4), 0, 1)  # the maps at the size of the image
    assert larger_image is not None
    assert larger_image.source == "parameters"
    within = thresholds.of(calibration, Rect(0.5, None, 1, 2), (2, 2), 0, 1)
    assert within is not None
    assert (within.pixels, within.source) == (just_above(1.0), "shape")


def test_images_of_sizes_between_those_of_the_ok_images_are_judged_by_the_calibration_itself() -> None:
    _, maps = fitted(60)
    calibration, _ = derived(60)
    thresholds = ShapeThresholds(maps, [Frame((100, 200)), Frame((150, 400))])
    for size, source in {
        (120, 300): "calibration",
        (91, 440): "calibration",
        (90, 300): "parameters",
        (120, 441): "parameters",
    }.items():
        found = thresholds.of(calibration, None, size, 0, 1)
        assert found is not None
        assert found.source == source


def test_given_scores_far_below_the_leave_one_out_scores_are_not_counted_on_the_maps() -> None:
    # Unseen images can score below all leave-one-out scores: on the maps, the score alone would reject 60 of 60.
    calibration, warnings = derived(60, ok_scores=[0.001] * 12, ng_scores=[1.5])
    assert calibration.threshold < 0.002
    assert calibration.verdict_false_alarm_rate == pytest.approx(1 / 61 + 1 / 13)
    low, high = calibration.verdict_false_alarm_interval or (1, 0)
    assert low == 0
    assert 1 / 61 + 1 / 13 < high < 0.35
    assert any("9.3% of good parts are expected to be rejected, because only 12 ok_scores" in each for each in warnings)


def test_given_scores_above_the_level_of_the_peak_add_no_false_alarms() -> None:
    calibration, _ = derived(60, ok_scores=[5.0] * 12)
    assert calibration.verdict_false_alarm_rate == pytest.approx(1 / 61)


@pytest.mark.parametrize(
    ("more", "why"),
    [
        ({"false_alarm_rate": 0.02}, "there are too few OK images"),
        ({"ok_scores": [0.1, 0.2, 0.3]}, "only 3 ok_scores were sent"),
        ({"false_alarm_rate": 0.02, "ok_scores": [0.1, 0.2, 0.3]}, "only 3 ok_scores were sent"),
    ],
)
def test_a_stated_rate_above_the_one_asked_for_is_told_with_its_cause(more: dict[str, Any], why: str) -> None:
    calibration, warnings = derived(**{"false_alarm_rate": 0.2, **more})
    (told,) = [each for each in warnings if "was asked for" in each]
    assert f"{calibration.verdict_false_alarm_rate:.1%} of good parts are expected to be rejected" in told
    assert why in told


def test_ng_images_that_raise_the_stated_rate_above_the_one_asked_for_are_told() -> None:
    calibration, _ = derived(false_alarm_rate=0.2)
    raised = calibration.model_copy(update={"n_ng": 1, "verdict_false_alarm_rate": 0.3})
    (told,) = peak_rule_warnings(raised, n_images=10)
    assert "0.2 was asked for, and 30.0% of good parts" in told
    assert "the NG images lower the threshold of the score" in told
