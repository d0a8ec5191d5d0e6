"""Thresholds within a shape, from maps that a person can compute by hand."""

import numpy as np
import pytest

from gateway.calibration.calibrate import derive
from gateway.calibration.request import CalibrationRequest
from gateway.calibration.within_shape import ShapeThresholds, Thresholds
from gateway.settings import Settings
from gateway.store.manifest import Calibration, Manifest, OkImage
from gateway.store.ok_maps import OkMaps
from postprocess.roi_mask import Circle, Rect, Shape

SETTINGS = Settings(_env_file=None, blur_sigma=0.0, area_mm2_thr=1.0, p_score=100.0)
LEFT = Rect(0.5, None, 1, 2)
LEFT_JSON = '{"kind": "rect", "cx": 0.5, "cy": null, "w": 1, "h": 2}'
SIZE = (2, 2)
OF_LEFT = {"shape": LEFT, "shape_json": LEFT_JSON}
# Ten images of 2×2 pixels, one token each: the left pixels are i / 10, the right ones 3 i / 10.
DISTANCES = np.array([[i, 3 * i, i, 3 * i] for i in range(1, 11)], np.float32) / 10


def version(shape: str | None = None, with_maps: bool = True) -> tuple[Manifest, OkMaps | None, ShapeThresholds]:
    images = tuple(
        OkImage(sha256=f"{i:064x}", file_name="x", extension="png", width=2, height=2, added_in=1, shape=shape)
        for i in range(10)
    )
    maps = OkMaps(DISTANCES, (2, 2), tuple(image.frame for image in images))
    top = 1 if shape else 3
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
        p_score=100,
        mm_per_px=1.0,
        n_embeddings=4,
        n_tokens_total=40,
        covering_radius=0.1,
        images=images,
        ok_scores=tuple(top * i / 10 for i in range(1, 11)),
        heatmap_max=1.0,
        files={"memory.npz": "c"},
    )
    frames = [image.frame for image in images]
    return manifest, maps if with_maps else None, ShapeThresholds(maps if with_maps else None, frames)


def calibrated(
    fitted: str | None = None, with_maps: bool = True, **fields: object
) -> tuple[Calibration, ShapeThresholds]:
    manifest, maps, thresholds = version(fitted, with_maps)
    request = CalibrationRequest(**{"mm_per_px": 1.0, "false_alarm_rate": 0.2, "pixel_threshold": "score", **fields})
    return derive(manifest, maps, SETTINGS, request)[0], thresholds


def of(
    thresholds: ShapeThresholds, calibration: Calibration, shape: Shape | None, size_wh: tuple[int, int] = SIZE
) -> Thresholds:
    found = thresholds.of(calibration, shape, size_wh, 0, 1)
    assert found is not None
    return found


def just_above(level: float) -> float:
    return float(np.nextafter(np.float32(level), np.float32(np.inf)))


def test_within_the_pixels_of_the_ok_images_the_stored_thresholds_apply() -> None:
    for shape, asked in ((None, None), (LEFT_JSON, LEFT)):
        calibration, thresholds = calibrated(shape)
        found = of(thresholds, calibration, asked, SIZE)
        assert (found.score, found.source, found.warning) == (calibration.threshold, "calibration", None)
    # The whole image is the whole part, in whatever size it comes.
    calibration, thresholds = calibrated()
    found = of(thresholds, calibration, None, (640, 480))
    assert found.source == "calibration"


def test_within_another_shape_the_rule_of_the_calibration_is_applied_to_the_ok_maps_there() -> None:
    calibration, thresholds = calibrated(pixel_threshold="ok_pixels")
    assert calibration.threshold == pytest.approx(3 * 0.9)  # rank ⌈11 × 0.8⌉ = 9
    found = of(thresholds, calibration, LEFT)
    assert (found.score, found.pixels, found.source) == (pytest.approx(0.9), just_above(0.9), "shape")


def test_without_a_shape_where_the_ok_images_had_one_the_whole_maps_count() -> None:
    calibration, thresholds = calibrated(LEFT_JSON)
    assert calibration.threshold == pytest.approx(0.9)
    found = of(thresholds, calibration, None, SIZE)
    assert (found.score, found.pixels, found.source) == (pytest.approx(2.7), pytest.approx(2.7), "shape")


def test_a_shape_of_another_image_size_is_drawn_on_maps_of_that_size() -> None:
    calibration, thresholds = calibrated(LEFT_JSON)
    # The same numbers in an image twice as large: a quarter of its width, at the middle of its height.
    found = of(thresholds, calibration, LEFT, (4, 4))
    assert (found.score, found.source) == (pytest.approx(0.9), "shape")
    right = of(thresholds, calibration, Rect(3.5, None, 1, 2), (4, 4))
    assert right.score == pytest.approx(2.7)


def test_the_rule_without_a_rate_is_p99_plus_the_margin() -> None:
    calibration, thresholds = calibrated(false_alarm_rate=None, margin=0.25)
    found = of(thresholds, calibration, LEFT)
    assert found.score == pytest.approx(np.percentile(DISTANCES[:, 0], 99) + 0.25)


def test_ng_scores_of_the_calibration_count_within_the_shape_too() -> None:
    calibration, thresholds = calibrated(ng_scores=[5.0])
    found = of(thresholds, calibration, LEFT)
    assert found.score == pytest.approx(0.991 + (5.0 - 0.991) / 20)  # the first candidate above the OK score of 1.0
    assert found.source == "shape"


def test_ok_scores_of_a_client_apply_to_the_way_it_inspects_and_a_warning_says_so() -> None:
    calibration, thresholds = calibrated(ok_scores=[0.5, 0.6], pixel_threshold="ok_pixels")
    whole, left = of(thresholds, calibration, None, SIZE), of(thresholds, calibration, LEFT)
    assert (whole.score, whole.source, whole.warning) == (0.6, "calibration", None)
    assert left.score == 0.6
    assert "send the shape to /calibrate_ng" in (left.warning or "")
    # The threshold of regions was made of the OK maps: within the shape it is made of their pixels there.
    assert left.pixels < whole.pixels
    fixed, thresholds = calibrated(ok_scores=[0.5, 0.6], pixel_threshold=0.4)
    left = of(thresholds, fixed, LEFT, SIZE)
    assert (left.score, left.pixels, left.source) == (0.6, 0.4, "calibration")


def test_scores_that_were_sent_with_a_shape_count_for_that_shape_only() -> None:
    calibration, thresholds = calibrated(ok_scores=[0.5, 0.6], ng_scores=[0.8], false_alarm_rate=None, **OF_LEFT)
    left = of(thresholds, calibration, LEFT)
    assert (left.score, left.source, left.warning) == (calibration.threshold, "calibration", None)
    for other in (None, Rect(1.5, None, 1, 2)):
        found = of(thresholds, calibration, other, SIZE)
        # Neither the OK nor the NG scores of the client are of these pixels.
        assert (found.score, found.source) == (pytest.approx(np.percentile(DISTANCES[:, 1], 99)), "shape")


def test_a_calibration_for_a_shape_takes_the_leave_one_out_scores_within_it() -> None:
    calibration, thresholds = calibrated(**OF_LEFT)
    assert calibration.threshold == pytest.approx(0.9)
    left, whole = of(thresholds, calibration, LEFT), of(thresholds, calibration, None, SIZE)
    assert (left.score, left.source) == (calibration.threshold, "calibration")
    assert (whole.score, whole.source) == (pytest.approx(2.7), "shape")


def test_without_ok_maps_own_scores_apply_to_their_pixels_only() -> None:
    calibration, thresholds = calibrated(with_maps=False)
    assert thresholds.of(calibration, None, SIZE, 0, 1) is not None
    assert thresholds.of(calibration, LEFT, SIZE, 0, 1) is None


def test_thresholds_are_computed_once_for_a_shape_and_a_bounded_number_is_kept() -> None:
    calibration, thresholds = calibrated()
    first = of(thresholds, calibration, LEFT)
    assert of(thresholds, calibration, LEFT) is first
    for i in range(200):
        of(thresholds, calibration, Circle(None, None, 1 + i / 100), SIZE)
    assert len(thresholds._found) <= 64
    again = of(thresholds, calibration, LEFT)
    assert again == first
    # Another calibration of the version is another rule.
    other, _ = calibrated(false_alarm_rate=None, margin=1.0)
    found = of(thresholds, other, LEFT, SIZE)
    assert found.score > first.score
