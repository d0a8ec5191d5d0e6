"""The acceptance walk: fit 20 OK images, inspect, calibrate with 0 to 3 NG scores, inspect again."""

import base64
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
import pytest

from tests.e2e.synthetic_images import decoded, png, steel, with_blob, with_scratch

SIZES = [(384, 384), (640, 480), (200, 500)]
PATCHES = 27


@dataclass(frozen=True, slots=True)
class Walk:
    """What the gateway answered, step by step."""

    fit: dict[str, Any]
    ok: list[dict[str, Any]]
    ng: list[dict[str, Any]]
    """Before calibration: one answer for each size of SIZES, a blob, then a scratch."""
    masks: list[np.ndarray]
    images: list[bytes]
    calibrations: list[dict[str, Any]]
    """With 0, 1, 2 and 3 NG scores."""


@pytest.fixture(scope="module")
def gateway(launch, model_repository):
    """A gateway with the network at its full size, which the walk is about."""
    with launch("walk", model_repository=model_repository) as started:
        yield started


@pytest.fixture(scope="module")
def walk(gateway) -> Walk:
    fit = gateway.fit("plate", [(f"ok {seed}.png", png(steel(seed))) for seed in range(20)])
    ok = [gateway.infer("plate", png(steel(seed))) for seed in range(100, 104)]
    defects = [defect for size in SIZES for defect in _defects(size)]
    images = [png(image) for image, _ in defects]
    ng = [gateway.infer("plate", image) for image in images]
    scores = {"ok_scores": [answer["score"] for answer in ok]}
    ng_scores = [answer["score"] for answer in ng]
    calibrations = [gateway.calibrate("plate", **scores, ng_scores=ng_scores[:n], area_mm2_thr=1.0) for n in range(4)]
    return Walk(fit, ok, ng, [mask for _, mask in defects], images, calibrations)


def _defects(size_wh):
    width, height = size_wh
    ok = steel(50, size_wh)
    yield with_blob(ok, (width * 2 // 3, height // 3), max(16, width // 22, height // 22))
    yield with_scratch(ok, (width // 4, height // 2), (width // 3, height * 3 // 4), 10)


def heatmap_of(answer) -> np.ndarray:
    return decoded(base64.b64decode(answer["heatmap_png_base64"]))


def near(mask: np.ndarray) -> np.ndarray:
    """The defect and half a patch around it: a patch's distance stands at its centre."""
    height, width = mask.shape
    return cv2.dilate(mask.astype(np.uint8), np.ones((height // PATCHES, width // PATCHES))).astype(bool)


def drawn(region, shape_hw) -> np.ndarray:
    canvas = np.zeros(shape_hw, np.uint8)
    cv2.drawContours(canvas, [np.array(region["contour"], np.int32)], -1, 1, cv2.FILLED)
    return canvas.astype(bool)


def test_the_coreset_is_1_to_5_percent(walk):
    fit = walk.fit
    assert fit["n_ok_total"] == fit["n_ok_added"] == 20
    assert 0.01 <= fit["coreset_rate_applied"] <= 0.05
    assert fit["token_shape"] == walk.ok[0]["token_shape"] == [PATCHES, PATCHES]
    assert fit["n_embeddings"] == round(fit["coreset_rate_applied"] * 20 * PATCHES**2)


def test_every_defect_scores_above_every_ok_image(walk):
    assert min(answer["score"] for answer in walk.ng) > max(answer["score"] for answer in walk.ok)


@pytest.mark.parametrize("defect", range(2 * len(SIZES)))
def test_the_heatmap_is_of_the_images_own_size_and_peaks_inside_the_defect(walk, defect):
    heatmap, mask = heatmap_of(walk.ng[defect]), walk.masks[defect]
    assert heatmap.dtype == np.uint8
    assert heatmap.shape == mask.shape
    assert heatmap.max() < 255, "saturated: the peak cannot be told"
    assert near(mask)[np.unravel_index(heatmap.argmax(), heatmap.shape)]


def test_before_calibration_there_is_a_score_and_nothing_else(walk):
    for answer in (*walk.ok, *walk.ng):
        assert answer["threshold"] is None
        assert answer["regions"] == []


def test_without_ng_no_given_ok_score_is_above_the_threshold(walk):
    chosen = walk.calibrations[0]
    p99 = np.percentile([answer["score"] for answer in walk.ok], 99)
    assert chosen["p99_ok"] == pytest.approx(p99)
    assert chosen["threshold"] == max(answer["score"] for answer in walk.ok)
    assert chosen["p5_ng"] is None
    assert (chosen["method"], chosen["pixel_threshold_source"]) == ("conformal", "peak")


@pytest.mark.parametrize("n_ng", [1, 2, 3])
def test_with_ng_the_threshold_lies_between_p99_of_ok_and_p5_of_ng(walk, n_ng):
    chosen = walk.calibrations[n_ng]
    assert chosen["p5_ng"] == pytest.approx(np.percentile([answer["score"] for answer in walk.ng[:n_ng]], 5))
    assert chosen["p99_ok"] < chosen["threshold"] < chosen["p5_ng"]
    assert (chosen["n_ok"], chosen["n_ng"], chosen["ok_above"], chosen["ng_below"]) == (4, n_ng, 0, 0)


def test_the_threshold_in_use_is_the_last_one(walk, gateway):
    ok = gateway.infer("plate", png(steel(100)))
    assert ok["threshold"] == walk.calibrations[-1]["threshold"]
    assert ok["score"] == walk.ok[0]["score"]


@pytest.mark.parametrize(("defect", "mm_per_px"), [(0, 0.05), (1, 0.2), (2, 0.05), (3, 0.2), (4, 0.05), (5, 0.2)])
def test_regions_are_where_the_defect_is_with_areas_in_mm2(walk, gateway, defect, mm_per_px):
    answer = gateway.infer("plate", walk.images[defect], mm_per_px=mm_per_px, area_mm2_thr=0)
    mask = walk.masks[defect]
    assert answer["regions"]
    largest = answer["regions"][0]
    assert (drawn(largest, mask.shape) & mask).any()
    assert [r["area_px"] for r in answer["regions"]] == sorted((r["area_px"] for r in answer["regions"]), reverse=True)
    for region in answer["regions"]:
        points = np.array(region["contour"])
        x, y, width, height = region["bbox"]
        assert (points.min(axis=0) == (x, y)).all()
        assert (points.max(axis=0) == (x + width - 1, y + height - 1)).all()
        assert 0 <= x < x + width <= mask.shape[1]
        assert 0 <= y < y + height <= mask.shape[0]
        assert region["area_px"] <= drawn(region, mask.shape).sum()
        assert region["area_mm2"] == pytest.approx(region["area_px"] * mm_per_px**2)


def test_regions_are_the_pixels_of_the_heatmap_at_the_threshold(walk, gateway):
    answer = gateway.infer("plate", walk.images[2], area_mm2_thr=0)
    level = answer["peak_threshold"] / answer["heatmap_max"] * 255
    heatmap = heatmap_of(answer)
    total = sum(region["area_px"] for region in answer["regions"])
    assert (heatmap > np.ceil(level)).sum() <= total <= (heatmap >= np.floor(level)).sum()


@pytest.fixture(scope="module")
def one_level(walk, gateway):
    """A threshold of regions that does not depend on the smallest area, for the last tests of this module."""
    level = walk.calibrations[-1]["threshold"]
    gateway.calibrate("plate", ok_scores=[level], pixel_threshold=level)


@pytest.mark.parametrize(("defect", "mm_per_px"), [(0, 0.05), (3, 0.2), (4, 1.5)])
def test_islands_below_the_smallest_area_are_dropped_at_any_scale(walk, gateway, one_level, defect, mm_per_px):
    every = gateway.infer("plate", walk.images[defect], mm_per_px=mm_per_px, area_mm2_thr=0)["regions"]
    largest = every[0]["area_mm2"]
    exactly = gateway.infer("plate", walk.images[defect], mm_per_px=mm_per_px, area_mm2_thr=largest)["regions"]
    assert exactly == [region for region in every if region["area_px"] == every[0]["area_px"]]
    above = gateway.infer("plate", walk.images[defect], mm_per_px=mm_per_px, area_mm2_thr=largest + mm_per_px**2 / 2)
    assert above["regions"] == []
    assert above["score"] > above["threshold"]


def test_the_calibrations_smallest_area_holds_where_the_request_gives_none(walk, gateway):
    answer = gateway.infer("plate", walk.images[0], mm_per_px=0.01)
    assert answer["params"]["area_mm2_thr"] == 1.0
    assert answer["regions"] == []
