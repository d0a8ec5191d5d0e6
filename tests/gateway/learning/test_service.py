"""Fits with a token engine that can be computed by hand: learning, suspects, removal, recalibration."""

import contextlib
import itertools
import json
import logging
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from gateway.errors import InvalidRequestError, UnknownImageError, UnknownRoiError
from postprocess.roi_mask import parse_shape
from tests.gateway.brightness_engine import distance, image, sha256
from tests.gateway.fit_bench import EVEN, STRAY, Bench


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    return Bench(tmp_path / "models")


# --- leave-one-out ---------------------------------------------------------------------------------------------------


def test_each_ok_image_is_scored_against_the_bank_without_it(bench: Bench) -> None:
    result = bench.fit([image(100), image(120), image(150), image(200)])
    expected = [distance(0, 20), distance(0, 20), distance(0, 30), distance(0, 50)]
    assert result.manifest.ok_scores == pytest.approx(expected, abs=2e-3)
    # Once learned, its distance is 0.
    assert bench.infer(image(200)).score == pytest.approx(0, abs=2e-3)


def test_mean_and_spread_of_the_maps_are_stored_with_the_version(bench: Bench) -> None:
    bench.fit([image(100), image(120), image(150, {(0, 0): 120})])
    with np.load(bench.store.root / "part/face/versions/1/leave_one_out.npz") as arrays:
        distances, mean, std = arrays["distances"], arrays["mean"], arrays["std"]
    assert (distances.shape, mean.shape, std.shape) == ((3, 16), (4, 4), (4, 4))
    # The corner of the third image equals tokens of the second. A rate of 1 keeps equal tokens: each of the two images
    # is measured by the other one.
    corner, elsewhere = [20, 0, 0], [20, 0, 30]
    assert distances[:, 0] == pytest.approx([distance(0, d) for d in corner], abs=2e-3)
    assert distances[:, 5] == pytest.approx([distance(0, d) for d in elsewhere], abs=2e-3)
    assert mean[0, 0] == pytest.approx(np.mean([distance(0, d) for d in corner]), abs=2e-3)
    assert std[1, 1] == pytest.approx(np.std([distance(0, d) for d in elsewhere]), abs=2e-3)


def test_a_damaged_leave_one_out_file_is_noticed(bench: Bench) -> None:
    bench.fit(EVEN[:2])
    bench.fit(EVEN[2:3])
    (bench.store.root / "part/face/versions/2/leave_one_out.npz").write_bytes(b"x")
    assert bench.infer(EVEN[0]).version == 1


def test_a_version_without_stored_maps_serves_and_calibrates(bench: Bench) -> None:
    bench.fit(EVEN)
    folder = bench.store.root / "part/face/versions/1"
    manifest = json.loads((folder / "manifest.json").read_text())
    manifest["format"] = 1
    for key in ("sha256", "excluded", "spatial_weights"):
        del manifest[key]
    del manifest["files"]["leave_one_out.npz"]
    (folder / "leave_one_out.npz").unlink()
    text = json.dumps(manifest)
    (folder / "manifest.json").write_text(text)
    (bench.store.root / "part/face/current").write_text(f"1 {sha256(text.encode())}\n")
    calibration = bench.calibrate()
    assert calibration.threshold == pytest.approx(distance(0, 10), abs=2e-3)
    assert calibration.verdict_false_alarm_rate is None
    assert bench.infer(image(200)).verdict == "ng"
    with pytest.raises(InvalidRequestError, match="ok_pixels needs leave-one-out maps"):
        bench.calibrate(pixel_threshold="ok_pixels")
    with pytest.raises(InvalidRequestError, match="score_percentile"):
        bench.calibrate(score_percentile=95.0)


# --- verdict ---------------------------------------------------------------------------------------------------------


def test_before_calibration_there_is_no_verdict(bench: Bench) -> None:
    bench.fit(EVEN)
    answer = bench.infer(STRAY)
    assert (answer.verdict, answer.verdict_reason, answer.threshold, answer.peak_threshold) == (
        "uncalibrated",
        None,
        None,
        None,
    )
    assert not answer.calibration_stale


def test_a_defect_that_the_percentile_cannot_see_is_rejected_by_its_region(bench: Bench) -> None:
    # One patch of sixteen is off: 6 % of the pixels. The 99th percentile is well within it, the 90th would not be.
    bench.fit(EVEN)
    small = image(50, {(1, 1): 250})
    bench.calibrate(pixel_threshold=0.5, area_mm2_thr=4.0, ok_scores=[2.0])
    answer = bench.infer(small)
    assert answer.score < 2.0
    assert (answer.verdict, answer.verdict_reason, len(answer.regions)) == ("ng", "region", 1)
    assert (answer.threshold, answer.peak_threshold) == (2.0, 0.5)
    bench.calibrate(pixel_threshold=0.5, area_mm2_thr=4.0, ok_scores=[0.2])
    assert bench.infer(small).verdict_reason == "both"
    assert bench.infer(small, area_mm2_thr=1000.0).verdict_reason == "score"
    assert bench.infer(image(55), area_mm2_thr=1000.0).verdict == "ok"


# --- calibration after a fit -----------------------------------------------------------------------------------------


def test_a_fit_redoes_a_calibration_that_rests_on_leave_one_out_scores(bench: Bench) -> None:
    bench.fit(EVEN)
    before = bench.calibrate(false_alarm_rate=0.1, pixel_threshold="ok_pixels", area_mm2_thr=3.0, score_percentile=98.0)
    assert before.threshold == pytest.approx(distance(0, 10), abs=2e-3)
    result = bench.fit([image(140)])
    assert result.calibration == "redone"
    after = bench.calibration
    # The new image differs by 30 from its nearest. Of 13 scores, the rank ⌈14 × 0.9⌉ = 13 is the largest.
    assert after.threshold == pytest.approx(distance(0, 30), abs=2e-3)
    assert after.pixel_threshold == pytest.approx(distance(0, 30), abs=2e-3)
    assert (after.version, after.bank_checksum, after.n_ok) == (2, result.manifest.checksum, 13)
    kept = ("false_alarm_rate", "pixel_threshold_source", "area_mm2_thr", "score_percentile", "margin", "method")
    assert [getattr(after, name) for name in kept] == [getattr(before, name) for name in kept]
    answer = bench.infer(image(65))
    assert not answer.calibration_stale
    assert not any("calibrat" in warning for warning in answer.warnings)


@pytest.mark.parametrize(
    "measured", [{"ok_scores": [0.1, 0.2]}, {"ng_scores": [0.9]}, {"pixel_threshold": 0.4}, {"ok_scores": [0.1]}]
)
def test_a_calibration_with_scores_or_thresholds_of_a_client_becomes_stale(
    bench: Bench, measured: dict[str, Any]
) -> None:
    bench.fit(EVEN)
    before = bench.calibrate(**measured)
    assert not bench.infer(image(65)).calibration_stale
    assert bench.fit([image(140)]).calibration == "stale"
    assert bench.calibration == before
    answer = bench.infer(image(65))
    assert answer.calibration_stale
    assert answer.threshold == before.threshold
    assert "calibrate again" in " ".join(answer.warnings)


@pytest.mark.parametrize("fsyncs_that_pass", range(15))
def test_bank_and_redone_threshold_change_together_wherever_a_fit_is_cut_off(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, fsyncs_that_pass: int
) -> None:
    bench.fit(EVEN)
    before = bench.calibrate()
    calls = itertools.count()
    fsync = os.fsync

    def cut_off(descriptor: int) -> None:
        if next(calls) >= fsyncs_that_pass:
            raise KeyboardInterrupt
        fsync(descriptor)

    with monkeypatch.context() as patched:
        patched.setattr(os, "fsync", cut_off)
        with contextlib.suppress(KeyboardInterrupt):
            bench.fit([image(140)])
    answer = bench.infer(image(65))
    assert not answer.calibration_stale
    assert not answer.degraded
    assert (answer.version, bench.calibration == before) in [(1, True), (2, False)]
    # The client sends the same again.
    result = bench.fit([image(140)])
    assert bench.infer(image(65)).version == result.manifest.version >= 2
    assert len(result.manifest.images) == 13


def test_a_new_shape_for_a_known_image_redoes_the_calibration(bench: Bench) -> None:
    bench.fit([*EVEN[:-1], image(110, {(0, 0): 180})])
    before = bench.calibrate(score_percentile=100.0)
    shape = '{"kind": "rect", "cx": 8, "cy": 12, "w": 16, "h": 8}'  # the lower half, without the deviating corner
    result = bench.fit([image(110, {(0, 0): 180})], shape=parse_shape(shape)[0], shape_json=shape)
    assert (result.calibration, result.duplicates) == ("redone", 1)
    assert bench.calibration.threshold < before.threshold
    assert before.is_stale(bench.manifest)
    assert not bench.calibration.is_stale(bench.manifest)


def test_without_a_calibration_there_is_none_to_redo(bench: Bench) -> None:
    assert bench.fit(EVEN).calibration == "none"
    bench.calibrate()
    assert bench.fit(EVEN).calibration == "current"


# --- suspects --------------------------------------------------------------------------------------------------------


def test_a_stray_image_is_a_suspect_and_is_learned(bench: Bench) -> None:
    result = bench.fit([*EVEN, STRAY])
    (suspect,) = result.suspects
    assert suspect.image.sha256 == sha256(STRAY)
    assert suspect.image.file_name == "12.png"
    assert suspect.score == pytest.approx(distance(250, 110), abs=2e-3)
    assert not suspect.excluded
    assert len(result.manifest.images) == 13
    assert bench.infer(STRAY).score == pytest.approx(0, abs=2e-3)


def test_with_exclude_suspects_it_is_excluded_from_this_and_later_banks(bench: Bench) -> None:
    result = bench.fit([*EVEN, STRAY], exclude_suspects=True)
    assert [(suspect.image.sha256, suspect.excluded) for suspect in result.suspects] == [(sha256(STRAY), True)]
    assert (result.n_added, len(result.manifest.images)) == (12, 12)
    (excluded,) = result.manifest.excluded
    assert (excluded.sha256, excluded.reason, excluded.excluded_in) == (sha256(STRAY), "suspect", 1)
    assert bench.infer(STRAY).score == pytest.approx(distance(250, 110), abs=2e-3)
    # The bank equals a bank built without it.
    assert bench.manifest.ok_scores == pytest.approx([distance(0, 10)] * 12, abs=2e-3)

    bench.fit([image(120)])
    assert [image.sha256 for image in bench.manifest.excluded] == [sha256(STRAY)]
    again = bench.fit([STRAY])
    assert (again.n_added, again.duplicates) == (0, 1)
    assert "an earlier fit excluded this image as a suspect" in " ".join(again.warnings)
    assert bench.infer(STRAY).score > 1


def test_a_later_fit_with_exclude_suspects_excludes_learned_suspects(bench: Bench) -> None:
    bench.fit([*EVEN, STRAY])
    result = bench.fit([EVEN[0]], exclude_suspects=True)
    assert (result.manifest.version, result.n_added) == (2, 0)
    assert [image.sha256 for image in result.manifest.excluded] == [sha256(STRAY)]
    assert bench.fit([EVEN[0]], exclude_suspects=True).manifest.version == 2  # no suspect is left


# --- removal ---------------------------------------------------------------------------------------------------------


def test_after_removal_the_bank_equals_one_without_the_image(bench: Bench, tmp_path: Path) -> None:
    bench.fit([*EVEN, STRAY])
    bench.calibrate()
    result = bench.remove(STRAY)
    never = Bench(tmp_path / "other")
    never.fit(EVEN)
    assert result.manifest.checksum == never.manifest.checksum
    assert result.manifest.ok_scores == never.manifest.ok_scores
    assert (result.calibration, bench.calibration.n_ok) == ("redone", 12)
    with pytest.raises(UnknownImageError):
        bench.remove(STRAY)
    assert bench.fit([STRAY]).n_added == 1  # sent again, it is learned again


def test_a_removed_excluded_image_is_learned_when_sent_again(bench: Bench) -> None:
    bench.fit([*EVEN, STRAY], exclude_suspects=True)
    bench.calibrate(ok_scores=[0.5])
    before = bench.manifest.checksum
    result = bench.remove(STRAY)
    assert (result.manifest.checksum, result.manifest.excluded) == (before, ())
    assert result.calibration == "current"  # the bank is the same
    assert bench.fit([STRAY]).n_added == 1


def test_the_only_image_cannot_be_removed(bench: Bench) -> None:
    bench.fit([EVEN[0]])
    with pytest.raises(InvalidRequestError, match="only OK image") as caught:
        bench.remove(EVEN[0])
    assert "DELETE /rois/part/face" in caught.value.hint
    assert bench.manifest.version == 1


def test_an_unknown_image_cannot_be_removed(bench: Bench) -> None:
    with pytest.raises(UnknownRoiError):
        bench.remove(EVEN[0])
    bench.fit([EVEN[0]])
    with pytest.raises(UnknownImageError, match="part/face has no OK image"):
        bench.remove(EVEN[1])


def test_a_calibration_becomes_stale_when_no_leave_one_out_scores_are_left(bench: Bench) -> None:
    bench.fit(EVEN[:2])
    bench.calibrate()
    assert bench.remove(EVEN[1]).calibration == "stale"


# --- spatial weights -------------------------------------------------------------------------------------------------


@pytest.fixture
def roi_file(tmp_path: Path) -> Path:
    path = tmp_path / "roi.json"
    path.write_text('{"face": [0, 64, 0, 128]}')  # the upper half
    return path


def test_with_a_manual_box_only_defects_inside_it_reject(tmp_path: Path, roi_file: Path) -> None:
    above, below = image(50, {(0, 1): 250}), image(50, {(3, 1): 250})
    plain = Bench(tmp_path / "plain")
    boxed = Bench(tmp_path / "boxed", roi_config=roi_file)
    for bench in (plain, boxed):
        bench.fit(EVEN)
        bench.calibrate(area_mm2_thr=1.0)
    assert [plain.infer(data).verdict for data in (above, below)] == ["ng", "ng"]
    assert [boxed.infer(data).verdict for data in (above, below)] == ["ng", "ok"]


def test_the_weights_apply_to_every_score_and_are_stored_with_the_version(tmp_path: Path, roi_file: Path) -> None:
    bench = Bench(tmp_path / "models", roi_config=roi_file)
    result = bench.fit(EVEN)
    weights = np.load(bench.store.root / "part/face/versions/1/spatial_mask.npy")
    assert (weights.dtype, weights.tolist()) == (np.float32, [[2.0] * 4] * 2 + [[np.float32(0.1)] * 4] * 2)
    assert result.manifest.ok_scores == pytest.approx([2 * distance(0, 10)] * 12, abs=4e-3)
    assert result.manifest.heatmap_max == pytest.approx(2 * 2**0.5)
    assert result.manifest.spatial_weights.kind == "manual"
    assert bench.infer(image(130)).score == pytest.approx(2 * distance(0, 20), abs=4e-3)
    assert bench.calibrate().threshold == pytest.approx(2 * distance(0, 10), abs=4e-3)
    assert bench.calibrate(score_percentile=95.0).threshold == pytest.approx(2 * distance(0, 10), abs=4e-3)


def test_variance_gives_low_weights_where_ok_images_differ(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    bench = Bench(tmp_path / "models")
    restless = [image(grey, {(0, 0): corner}) for grey, corner in zip(range(0, 120, 10), (200, 255) * 6, strict=True)]
    with caplog.at_level(logging.INFO, "gateway.detectors.spatial_weighting"):
        bench.fit(restless, spatial_weights="variance")
    weights = np.load(bench.store.root / "part/face/versions/1/spatial_mask.npy")
    spread = np.load(bench.store.root / "part/face/versions/1/leave_one_out.npz")["std"]
    expected = 0.1 + 1.9 * (1 - (spread - spread.min()) / (spread.max() - spread.min()))
    np.testing.assert_allclose(weights, expected, rtol=1e-5)
    assert "0.1 to 2" in caplog.text


def test_a_manual_box_overrides_variance_and_the_override_is_logged(
    tmp_path: Path, roi_file: Path, caplog: pytest.LogCaptureFixture
) -> None:
    bench = Bench(tmp_path / "models", roi_config=roi_file, spatial_weights="variance")
    with caplog.at_level(logging.INFO, "gateway.detectors.spatial_weighting"):
        assert bench.fit(EVEN).manifest.spatial_weights.kind == "manual"
    before, override = (record.message for record in caplog.records if "spatial weights" in record.message)
    assert "before the override" in before
    assert " to " in before
    assert "overridden by the manual box [0.0, 64.0, 0.0, 128.0]: 0.1 to 2" in override


def test_one_image_has_no_variance_and_gets_no_weights(bench: Bench) -> None:
    result = bench.fit([EVEN[0]], spatial_weights="variance")
    assert "no variance" in " ".join(result.warnings)
    assert result.manifest.weights_checksum is None


def test_changed_weights_cause_a_warning_and_make_the_calibration_stale(bench: Bench) -> None:
    uneven = [image(grey, {(0, 0): grey * grey % 251}) for grey in range(0, 120, 10)]
    bench.fit(uneven, spatial_weights="variance")
    bench.calibrate(ok_scores=[0.5])
    result = bench.fit(uneven, spatial_weights="none")
    assert "spatial_weights: none here, variance at the fit before" in result.warnings
    assert (result.manifest.version, result.calibration) == (2, "stale")
    assert bench.infer(image(65)).calibration_stale


@pytest.mark.parametrize(
    "changed", ['{"face": [0, 32, 0, 128]}', "{}", '{"face": [0, 64, 0, 128], "part/face": [64, 128, 0, 128]}']
)
def test_a_changed_roi_file_makes_the_weights_stale_until_the_next_fit(
    tmp_path: Path, roi_file: Path, changed: str
) -> None:
    first = Bench(tmp_path / "models", roi_config=roi_file)
    first.fit(EVEN)
    assert not first.infer(image(65)).weights_stale
    roi_file.write_text(changed)
    later = Bench(tmp_path / "models", roi_config=roi_file)
    answer = later.infer(image(65))
    assert answer.weights_stale
    assert "fit again" in " ".join(answer.warnings)
    assert later.fit([EVEN[0]]).manifest.version == 2
    assert not later.infer(image(65)).weights_stale


def test_variance_weights_become_stale_when_their_range_changes(tmp_path: Path) -> None:
    first = Bench(tmp_path / "models")
    first.fit(EVEN, spatial_weights="variance")
    assert not first.infer(image(65)).weights_stale
    other = Bench(tmp_path / "models", mask_max_weight=3.0)
    assert other.infer(image(65)).weights_stale
