"""``explain``: the OK patch nearest to the peak, on images whose distances can be worked out by hand."""

import cv2
import numpy as np
import pytest

from gateway.inspection import explanation as explained
from postprocess.roi_mask import parse_shape
from tests.gateway.brightness_engine import PATCH, SIDE, distance, image, sha256
from tests.gateway.fit_bench import KEY, Bench

DARK = image(100, {(0, 3): 40})
BRIGHT = image(130, {(2, 1): 200})
ASKED = image(100, {(3, 2): 185})
"""Its patch in row 3, column 2 is the only unusual one; the nearest OK patch is the one of 200 in `BRIGHT`."""


def pixels(data: bytes) -> np.ndarray:
    return cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED)


@pytest.fixture
def bench(tmp_path):
    bench = Bench(tmp_path / "models")
    bench.fit([DARK, BRIGHT])
    return bench


def ok_file(bench, data):
    return bench.store.ok(KEY).folder / f"{sha256(data)}.png"


def test_the_nearest_ok_patch_is_named_and_shown(bench):
    found = bench.infer(ASKED, explain=True).explanation
    assert found.distance == pytest.approx(distance(200, 185), abs=1e-3)
    assert found.box == (2 * PATCH, 3 * PATCH, PATCH, PATCH)
    assert (found.ok_image.sha256, found.ok_image.file_name) == (sha256(BRIGHT), "1.png")
    assert found.ok_box == (1 * PATCH, 2 * PATCH, PATCH, PATCH)
    assert found.crop.box == (PATCH, 2 * PATCH, 3 * PATCH, 2 * PATCH)
    assert np.array_equal(pixels(found.crop.png), pixels(ASKED)[2 * PATCH :, PATCH:])
    assert found.ok_crop.box == (0, PATCH, 3 * PATCH, 3 * PATCH)
    assert np.array_equal(pixels(found.ok_crop.png), pixels(BRIGHT)[PATCH:, : 3 * PATCH])


def test_only_pixels_inside_the_shape_are_explained(bench):
    twice = image(100, {(3, 2): 185, (0, 0): 225})
    shape, _ = parse_shape('{"kind": "rect", "cx": 10, "cy": 12, "w": 11, "h": 8}')
    whole = bench.infer(twice, explain=True).explanation
    inside = bench.infer(twice, explain=True, shape=shape).explanation
    assert whole.box == (0, 0, PATCH, PATCH)
    assert inside.box == (2 * PATCH, 3 * PATCH, PATCH, PATCH)


def test_with_more_neighbours_the_nearest_one_is_shown(bench):
    one, three = (bench.infer(ASKED, explain=True, k=k).explanation for k in (1, 3))
    assert one == three


def test_boxes_are_in_the_pixels_of_each_image(bench):
    larger = cv2.imencode(".png", cv2.resize(pixels(ASKED), (3 * SIDE, 2 * SIDE), interpolation=cv2.INTER_NEAREST))[1]
    found = bench.infer(larger.tobytes(), explain=True).explanation
    assert found.box == (2 * 3 * PATCH, 3 * 2 * PATCH, 3 * PATCH, 2 * PATCH)
    assert found.ok_box == (1 * PATCH, 2 * PATCH, PATCH, PATCH)


def test_an_image_too_large_to_keep_is_decoded_again_and_explained_alike(bench, monkeypatch):
    kept = bench.infer(ASKED, explain=True).explanation
    monkeypatch.setattr(explained, "KEPT_PIXELS", 1)
    assert bench.infer(ASKED, explain=True).explanation == kept


@pytest.mark.parametrize("spoil", ["remove", "damage"])
def test_without_the_ok_file_the_crop_alone_is_missing(bench, spoil):
    before = bench.infer(ASKED, explain=True).explanation
    file = ok_file(bench, BRIGHT)
    file.unlink() if spoil == "remove" else file.write_bytes(b"\0" + file.read_bytes()[1:])
    answer = bench.infer(ASKED, explain=True)
    assert answer.explanation.ok_crop is None
    assert (answer.explanation.ok_image, answer.explanation.ok_box) == (before.ok_image, before.ok_box)
    assert answer.explanation.distance == before.distance
    assert answer.explanation.crop == before.crop
    (warning,) = [w for w in answer.warnings if w.startswith("explain:")]
    assert sha256(BRIGHT) in warning


def test_nothing_is_read_and_nothing_said_unless_asked(bench):
    ok_file(bench, BRIGHT).unlink()
    answer = bench.infer(ASKED)
    assert answer.explanation is None
    assert answer.times.header().count("explain") == 0
    assert not [w for w in answer.warnings if w.startswith("explain:")]


def test_an_image_that_shows_nothing_has_no_explanation(bench):
    blank = cv2.imencode(".png", np.full((SIDE, SIDE), 90, np.uint8))[1].tobytes()
    answer = bench.infer(blank, explain=True)
    assert answer.explanation is None
    assert "explain: the image shows nothing, so there is nothing to compare" in answer.warnings
