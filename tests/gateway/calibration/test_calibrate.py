"""Thresholds from scores and maps that a person can compute by hand."""

import math
from typing import Any

import numpy as np
import pytest

from gateway.calibration.calibrate import derive, redone
from gateway.calibration.ok_scores import ok_scores
from gateway.calibration.request import CalibrationRequest
from gateway.errors import InvalidRequestError
from gateway.settings import Settings
from gateway.store.manifest import Calibration, Manifest, OkImage
from gateway.store.ok_maps import OkMaps
from postprocess.roi_mask import Circle, Rect

SETTINGS = Settings(_env_file=None, blur_sigma=0.0, area_mm2_thr=1.0)


def fitted(n: int) -> tuple[Manifest, OkMaps]:
    """Image i of n: a map of i / n with one pixel of four twice that, on 2×2 pixels; its p99 is a little below."""
    images = tuple(
        OkImage(sha256=f"{i:064x}", file_name=f"{i}.png", extension="png", width=2, height=2, added_in=1)
        for i in range(1, n + 1)
    )
    distances = np.array([[i, i, i, 2 * i] for i in range(1, n + 1)], np.float32) / n
    maps = OkMaps(distances, (2, 2), tuple(image.frame for image in images))
    manifest = Manifest(
        role_id="part",
        roi_id="face",
        version=1,
        created_at="2026-01-01T00:00:00+00:00",
        model_fingerprint="f",
        extractor="dinov2-vit-s/14",
        token_hw=(2, 2),
        dim=8,
        coreset_rate=0.5,
        coreset_rate_applied=0.5,
        seed=0,
        k=1,
        p_score=99,
        mm_per_px=1.0,
        n_embeddings=4,
        n_tokens_total=4 * n,
        covering_radius=0.1,
        images=images,
        ok_scores=tuple(ok_scores(maps, 99)),
        heatmap_max=1.0,
        files={"memory.npz": "c"},
    )
    return manifest, maps


def derived(n: int = 10, **fields: Any) -> tuple[Calibration, list[str]]:
    manifest, maps = fitted(n)
    return derive(
        manifest, maps, SETTINGS, CalibrationRequest(**{"mm_per_px": 1.0, "pixel_threshold": "score", **fields})
    )


def p99(i: int, n: int) -> float:
    """Score of image i: position 2.97 of 3, between its third value, i, and its fourth, 2 i."""
    return (i + 0.97 * i) / n


def test_without_ok_scores_the_leave_one_out_scores_of_the_fit_count() -> None:
    calibration, _ = derived(10, false_alarm_rate=0.2)
    assert calibration.ok_source == "leave-one-out"
    assert calibration.threshold == pytest.approx(p99(9, 10))  # ⌈11 × 0.8⌉ = 9
    assert (calibration.n_ok, calibration.ok_above, calibration.method) == (10, 1, "conformal")
    assert calibration.expected_false_alarm_rate == pytest.approx(2 / 11)
    assert calibration.expected_false_alarm_interval is not None
    assert calibration.expected_false_alarm_interval[0] == 0


def test_for_another_percentile_the_maps_are_scored_again() -> None:
    calibration, _ = derived(10, false_alarm_rate=0.2, score_percentile=100.0)
    assert calibration.threshold == pytest.approx(2 * 9 / 10)


def test_a_rate_is_guaranteed_by_enough_given_scores() -> None:
    given, warnings = derived(ok_scores=[i / 100 for i in range(19)], false_alarm_rate=0.05, area_mm2_thr=9.0)
    assert (given.guaranteed, given.n_ok_needed, given.threshold) == (True, 0, 0.18)
    assert not any("false_alarm_rate" in warning for warning in warnings)

    few, warnings = derived(ok_scores=[0.1, 0.2], false_alarm_rate=0.05)
    assert (few.guaranteed, few.n_ok_needed, few.threshold) == (False, 17, 0.2)
    assert "needs 17 more OK scores than the 2 there are" in " ".join(warnings)

    own, warnings = derived(20, false_alarm_rate=0.05)
    assert (own.guaranteed, own.n_ok_needed) == (False, 0)
    assert "not as a guarantee" in " ".join(warnings)

    plain, warnings = derived(20)
    assert (plain.guaranteed, plain.n_ok_needed, plain.false_alarm_rate) == (None, None, None)
    assert not any("false_alarm_rate" in warning for warning in warnings)


def test_a_rate_beside_ng_scores_is_unused_and_a_warning_says_so() -> None:
    calibration, warnings = derived(ok_scores=[0.1], ng_scores=[0.9], false_alarm_rate=0.1)
    assert (calibration.method, calibration.threshold, calibration.guaranteed) == ("grid", 0.1, None)
    assert "was not used" in " ".join(warnings)


def test_regions_begin_at_the_threshold_of_the_score_on_request() -> None:
    assert derived(ok_scores=[0.3])[0].pixel_threshold == 0.3
    assert derived(ok_scores=[0.3], pixel_threshold=0.45)[0].pixel_threshold == 0.45


def test_with_ok_pixels_regions_begin_just_above_the_highest_pixel_of_the_same_rank() -> None:
    calibration, _ = derived(10, false_alarm_rate=0.2, pixel_threshold="ok_pixels")
    peak = np.float32(2 * 9) / np.float32(10)
    assert calibration.pixel_threshold == np.nextafter(peak, np.float32(math.inf))
    # Only the one image above that rank shows a region, and the score rejects it too.
    assert calibration.verdict_false_alarm_rate == pytest.approx(2 / 11)


def test_the_verdict_has_its_own_false_alarm_rate() -> None:
    # Threshold 1.97 × 0.9 = 1.773. Regions from there on: 2 × 0.9 = 1.8 and 2 × 1.0, one pixel of 1 mm² each.
    calibration, warnings = derived(10, false_alarm_rate=0.2)
    assert calibration.verdict_false_alarm_rate == pytest.approx(3 / 11)
    assert calibration.expected_false_alarm_rate == pytest.approx(2 / 11)
    # A pixel of 0.81 mm² is too small to count: only the score rejects.
    assert derived(10, false_alarm_rate=0.2, mm_per_px=0.9)[0].verdict_false_alarm_rate == pytest.approx(2 / 11)
    assert not any("regions would reject" in warning for warning in warnings)


def test_regions_that_reject_many_more_ok_images_than_the_score_cause_a_warning() -> None:
    calibration, warnings = derived(40, ok_scores=[2.0] * 99, pixel_threshold=1.0)
    # Image i has a pixel of i / 20: 21 of 40 have one of 1.0 or more. The score rejects none.
    assert calibration.verdict_false_alarm_rate == pytest.approx(22 / 41)
    assert "regions would reject 21 of 40 OK images" in " ".join(warnings)


def test_a_blind_area_above_the_smallest_area_that_counts_causes_a_warning() -> None:
    # 1 % of 2×2 pixels of 10 mm: 4 mm².
    _, warnings = derived(mm_per_px=10.0, area_mm2_thr=3.9)
    assert "99 hides defects of up to 4 mm² from the score, more than area_mm2_thr, 3.9 mm²" in " ".join(warnings)
    _, warnings = derived(mm_per_px=10.0, area_mm2_thr=4.1)
    assert not any("hides" in warning for warning in warnings)


def test_a_calibration_without_scores_or_maps_is_refused() -> None:
    manifest, _ = fitted(1)
    manifest = manifest.model_copy(update={"ok_scores": ()})
    with pytest.raises(InvalidRequestError, match="one OK image only"):
        derive(manifest, None, SETTINGS, CalibrationRequest(mm_per_px=1.0))
    with pytest.raises(InvalidRequestError, match="ok_pixels needs leave-one-out maps"):
        derive(manifest, None, SETTINGS, CalibrationRequest(1.0, ok_scores=[0.1], pixel_threshold="ok_pixels"))


def test_a_redone_calibration_follows_its_own_rule_not_the_settings() -> None:
    before, _ = derived(10, margin=0.25, pixel_threshold="ok_pixels", area_mm2_thr=7.0, score_percentile=98.0)
    manifest, maps = fitted(20)
    later = Settings(_env_file=None, threshold_margin=0.9, area_mm2_thr=2.0, p_score=95.0, blur_sigma=0.0)
    after = redone(manifest, maps, later, before)
    assert after is not None
    assert after.threshold == pytest.approx(np.percentile(ok_scores(maps, 98), 99) + 0.25)
    assert (after.margin, after.area_mm2_thr, after.score_percentile) == (0.25, 7.0, 98.0)
    assert redone(manifest, None, later, before) is None


def test_a_calibration_with_one_threshold_is_read() -> None:
    calibration, _ = derived(ok_scores=[0.3])
    old = calibration.model_dump(include={"threshold", "p99_ok", "p5_ng", "mm_per_px", "area_mm2_thr", "method"})
    old |= calibration.model_dump(include={"score_percentile", "n_ok", "n_ng", "ok_above", "ng_below", "separable"})
    old |= {"ok_source": "given", "margin": 0, "version": 1, "bank_checksum": "c", "created_at": "2026"}
    assert Calibration.model_validate(old).pixel_threshold == 0.3


@pytest.mark.parametrize(
    ("ok", "ng", "swapped"),
    [
        ([0.9, 0.8, 0.85], [0.4], True),
        ([0.9, 0.1], [0.3, 0.4], True),
        ([0.4, 0.5], [0.9], False),
        ([0.4, 0.6], [0.55], False),  # they overlap, in the right order
    ],
)
def test_ng_scores_below_the_ok_scores_cause_a_warning(ok: list[float], ng: list[float], swapped: bool) -> None:
    _, warnings = derived(ok_scores=ok, ng_scores=ng)
    assert any("probably swapped" in warning for warning in warnings) == swapped


def test_ng_scores_below_the_leave_one_out_scores_cause_a_warning() -> None:
    assert any("probably swapped" in warning for warning in derived(ng_scores=[0.1])[1])
    assert not any("probably swapped" in warning for warning in derived(ng_scores=[2.5])[1])


def test_a_shape_that_covers_no_pixel_of_an_ok_image_is_refused() -> None:
    with pytest.raises(InvalidRequestError, match=r"covers no pixel of the 2×2 image"):
        derived(shape=Circle(50.0, 50.0, 3.0), shape_json='{"kind": "circle", "cx": 50, "cy": 50, "r": 3}')


def test_the_neighbours_and_the_shape_are_kept_with_the_calibration() -> None:
    shape = '{"kind": "rect", "cx": 0.5, "cy": null, "w": 1, "h": 2}'
    calibration, _ = derived(shape=Rect(0.5, None, 1, 2), shape_json=shape)
    assert (calibration.k, calibration.shape) == (1, shape)
    manifest, maps = fitted(10)
    after = redone(manifest, maps, SETTINGS, calibration)
    assert after is not None
    assert (after.threshold, after.shape) == (calibration.threshold, shape)
