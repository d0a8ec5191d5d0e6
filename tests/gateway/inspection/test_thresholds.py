"""Which thresholds judge an image: within its shape, and only for the parameters that they were made with."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from postprocess.roi_mask import Shape, parse_shape
from tests.gateway.brightness_engine import distance, image
from tests.gateway.fit_bench import EVEN, KEY, Bench

LOWER_JSON = '{"kind": "rect", "cx": 8, "cy": 12, "w": 16, "h": 8}'
LOWER = parse_shape(LOWER_JSON)[0]
CORNERS = (0, 60, 20, 80, 200, 255)
# Greys from 100 to 150, 10 apart, with an upper right corner that differs much more.
RESTLESS = [image(100 + 10 * i, {(0, 3): corner}) for i, corner in enumerate(CORNERS)]


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    return Bench(tmp_path / "models", p_score=100.0, area_mm2_thr=0.0)


def fit(bench: Bench, images: list[bytes], shape: Shape | None = None) -> Any:
    return bench.fit(images, shape=shape, shape_json=LOWER_JSON if shape else None)


def test_a_shape_at_the_inspection_but_not_at_the_fit_judges_by_the_ok_images_within_it(bench: Bench) -> None:
    fit(bench, RESTLESS)
    stored = bench.calibrate()
    defect = image(125, {(3, 1): 170})  # 20 from the nearest grey of an OK image, less than the corners differ
    assert stored.threshold > distance(0, 15)
    assert bench.infer(defect).verdict == "ok"
    answer = bench.infer(defect, shape=LOWER)
    assert (answer.verdict, answer.threshold_source) == ("ng", "shape")
    assert answer.threshold == pytest.approx(distance(0, 10), abs=2e-3)
    assert bench.infer(image(125), shape=LOWER).verdict == "ok"
    assert bench.calibration == stored  # what is stored stays


def test_no_shape_at_the_inspection_but_one_at_the_fit_judges_by_the_whole_ok_images(bench: Bench) -> None:
    fit(bench, RESTLESS, LOWER)
    assert bench.calibrate().threshold == pytest.approx(distance(0, 10), abs=2e-3)
    within = bench.infer(image(125), shape=LOWER)
    assert (within.verdict, within.threshold_source) == ("ok", "calibration")
    whole = bench.infer(image(125))
    assert (whole.verdict, whole.threshold_source) == ("ok", "shape")
    assert whole.threshold > distance(0, 40)


def test_a_new_fit_or_calibration_is_followed(bench: Bench) -> None:
    fit(bench, RESTLESS)
    bench.calibrate()
    before = bench.infer(image(125), shape=LOWER).threshold
    fit(bench, [image(230)])
    assert bench.infer(image(125), shape=LOWER).threshold > before
    bench.calibrate(margin=0.5)
    assert bench.infer(image(125), shape=LOWER).threshold > 0.5 + before


def test_without_stored_maps_a_shape_that_is_not_calibrated_is_not_judged(bench: Bench) -> None:
    fit(bench, RESTLESS[:1])
    bench.calibrate(ok_scores=[0.1])
    answer = bench.infer(image(250), shape=LOWER)
    assert (answer.verdict, answer.threshold_source) == ("ng", "calibration")
    assert "send the shape to /calibrate_ng" in " ".join(answer.warnings)
    bench.calibrate(ok_scores=[0.1], shape=LOWER, shape_json=LOWER_JSON)
    assert bench.infer(image(250), shape=LOWER).verdict == "ng"
    answer = bench.infer(image(250))
    assert (answer.verdict, answer.verdict_reason, answer.threshold) == ("uncalibrated", "shape", None)
    assert "the image was not judged" in " ".join(answer.warnings)


@pytest.mark.parametrize(
    ("calibrated", "asked", "reason"),
    [
        ({}, {"p_score": 99.0}, "p_score"),
        ({"score_percentile": 97.0}, {"p_score": 99.0}, "p_score"),
        ({"score_percentile": 97.0, "ok_scores": [0.1]}, {"p_score": 100.0}, "p_score"),
        ({}, {"k": 2}, "k"),
        ({"ok_scores": [0.1]}, {"k": 3}, "k"),
    ],
)
def test_a_request_with_other_parameters_than_the_threshold_is_not_judged(
    bench: Bench, calibrated: dict[str, Any], asked: dict[str, Any], reason: str
) -> None:
    bench.fit(EVEN)
    bench.calibrate(**calibrated)
    answer = bench.infer(image(250), **asked)
    assert (answer.verdict, answer.verdict_reason) == ("uncalibrated", reason)
    assert (answer.threshold, answer.peak_threshold, answer.threshold_source, answer.regions) == (None, None, None, [])
    assert any(w.startswith(f"{reason}: ") and w.endswith("the image was not judged") for w in answer.warnings)
    # Without the parameter, that of the calibration is taken.
    plain = bench.infer(image(250))
    assert (plain.verdict, plain.params.p_score) == ("ng", calibrated.get("score_percentile", 100.0))
    same = bench.infer(image(250), p_score=plain.params.p_score, k=plain.params.k)
    assert same.verdict == "ng"


def test_a_threshold_that_was_made_with_another_k_than_the_version_has_does_not_judge(tmp_path: Path) -> None:
    Bench(tmp_path / "models").fit(EVEN)
    Bench(tmp_path / "models").calibrate(ok_scores=[0.1])
    later = Bench(tmp_path / "models", k=3)
    later.fit([image(140)])
    answer = later.infer(image(250))
    assert (answer.verdict, answer.verdict_reason) == ("uncalibrated", "k")
    assert later.infer(image(250), k=1).verdict == "ng"


def test_an_inspection_blurs_as_the_calibration_did(tmp_path: Path) -> None:
    bench = Bench(tmp_path / "models", blur_sigma=2.0)
    bench.fit(EVEN)
    bench.calibrate(pixel_threshold="ok_pixels")
    later = Bench(tmp_path / "models", blur_sigma=0.0)
    assert later.infer(image(65)).params.blur_sigma == 2.0
    assert later.infer(image(65), blur_sigma=1.0).params.blur_sigma == 1.0
    later.fit([image(140)])  # the calibration is redone by its own rule
    assert (later.calibration.blur_sigma, later.infer(image(65)).params.blur_sigma) == (2.0, 2.0)
    uncalibrated = Bench(tmp_path / "other", blur_sigma=0.5)
    uncalibrated.fit(EVEN)
    assert uncalibrated.infer(image(65)).params.blur_sigma == 0.5


# --- tokens outside the shape ----------------------------------------------------------------------------------------


def test_tokens_outside_the_shape_of_a_fit_do_not_enter_the_bank(bench: Bench) -> None:
    manifest = fit(bench, RESTLESS, LOWER).manifest
    with np.load(bench.store.storage.root / "part/face/versions/1/memory.npz") as arrays:
        rows = np.unique(arrays["token_index"] // 4)
    # The map in the first row of the shape takes its values from the row above too.
    assert rows.min() == 1
    assert manifest.n_tokens_total == 6 * 12
    # A defect like the restless corner is not hidden by it.
    bench.calibrate()
    assert bench.infer(image(125, {(3, 1): 200}), shape=LOWER).verdict == "ng"
    assert bench.infer(image(125), shape=LOWER).verdict == "ok"


def test_each_image_gives_the_tokens_inside_its_own_shape(bench: Bench) -> None:
    fit(bench, RESTLESS[:3], LOWER)
    manifest = fit(bench, RESTLESS[3:]).manifest
    assert manifest.n_tokens_total == 3 * 12 + 3 * 16
    assert bench.store.is_fitted(KEY)
