"""What a picture shows and how its samples are scaled reaches the verdict and the warnings."""

import asyncio
import io
import math
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image

from gateway.images.decoding import Limits, decode_picture, read_header
from gateway.inspection.picture_warnings import picture_warnings
from tests.gateway.brightness_engine import SIDE, image
from tests.gateway.fit_bench import EVEN, Bench, request_of

PIXELS = cv2.imdecode(np.frombuffer(image(65), np.uint8), cv2.IMREAD_UNCHANGED)


def png(pixels: np.ndarray) -> bytes:
    return cv2.imencode(".png", pixels)[1].tobytes()


def bmp(pixels: np.ndarray) -> bytes:
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "BMP")
    return file.getvalue()


def hot_pixel() -> bytes:
    pixels = np.zeros((600, 600), np.uint8)
    pixels[300, 300] = 40
    return png(pixels)


NOTHING = {
    "black": png(np.zeros((SIDE, SIDE), np.uint8)),
    "white": bmp(np.full((SIDE, SIDE, 3), 255, np.uint8)),
    "one grey that was learned": png(np.full((SIDE, SIDE), 60, np.uint8)),
    "one colour": bmp(np.full((SIDE, SIDE, 3), (0, 0, 200), np.uint8)),
    "transparent": png(np.dstack([PIXELS] * 3 + [np.zeros_like(PIXELS)])),
    "too dark for 8 bits": png(PIXELS.astype(np.uint16)),
    "a hot pixel": hot_pixel(),
}


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    bench = Bench(tmp_path / "models")
    bench.fit(EVEN)
    return bench


@pytest.mark.parametrize("data", [pytest.param(data, id=name) for name, data in NOTHING.items()])
def test_a_picture_that_shows_nothing_is_ng_by_name_whatever_its_score(bench: Bench, data: bytes) -> None:
    for _ in range(2):  # before calibration and after it
        answer = bench.infer(data)
        assert (answer.verdict, answer.verdict_reason, answer.regions) == ("ng", "no_picture", [])
        assert math.isfinite(answer.score)
        assert [w for w in answer.warnings if w.startswith("no picture: ")]
        bench.calibrate(ok_scores=[1.9], area_mm2_thr=0.0)
    assert bench.infer(image(65)).verdict == "ok"


def test_a_picture_that_shows_nothing_fails_no_other_of_its_batch(bench: Bench) -> None:
    bench.calibrate(ok_scores=[1.9])
    requests = [request_of(data) for data in (NOTHING["black"], image(65), NOTHING["transparent"])]
    answers = asyncio.run(bench.pipeline.infer_batch(requests))
    assert [answer.verdict for answer in answers] == ["ng", "ok", "ng"]


def test_a_camera_of_12_bits_is_scaled_by_its_depth_where_it_is_stated(bench: Bench) -> None:
    unlike_any = cv2.imdecode(np.frombuffer(image(200), np.uint8), cv2.IMREAD_UNCHANGED)
    in_16_bits = png(np.rint(unlike_any / 255 * 4095).astype(np.uint16))
    plain, silent, stated = bench.infer(png(unlike_any)), bench.infer(in_16_bits), bench.infer(in_16_bits, bit_depth=12)
    assert stated.score == plain.score > 0.5
    assert silent.score < 0.1  # nearly black, as some of the OK images are
    assert any("send bit_depth=12" in warning for warning in silent.warnings)
    assert not any("send bit_depth" in warning for warning in stated.warnings)
    assert (silent.params.bit_depth, stated.params.bit_depth) == (None, 12)


def test_a_sliver_of_the_range_is_told(bench: Bench) -> None:
    answer = bench.infer(png(100 + PIXELS // 8))
    assert any("of 0 to 255: less than 1/8 of the range" in warning for warning in answer.warnings)
    assert bench.infer(png(PIXELS)).warnings == []


def warned(data: bytes, stated: int | None, bench: Bench, **fitted: object) -> str:
    picture = decode_picture(data, "x", read_header(data, "x", Limits(2**20, 10**6)), stated)
    images = tuple(image.model_copy(update={"bits": fitted.get("bits")}) for image in bench.manifest.images)
    manifest = bench.manifest.model_copy(update={"images": images, "bit_depth": fitted.get("bit_depth")})
    return "; ".join(picture_warnings(picture, None, manifest))


def test_images_of_another_depth_than_the_fits_are_told(bench: Bench) -> None:
    in_16_bits = png(np.rint(PIXELS / 255 * 4095).astype(np.uint16))
    assert warned(in_16_bits, 12, bench, bit_depth=12, bits=16) == ""
    assert "bit_depth: 12 here, 10 at the fit" in warned(in_16_bits, 12, bench, bit_depth=10, bits=16)
    assert "8 bits a sample here" not in warned(png(PIXELS), None, bench, bits=8)
    assert "8 bits a sample, the OK images have 16" in warned(png(PIXELS), None, bench, bits=16)
    assert "not bit_depth=12" in warned(png(PIXELS), 12, bench, bit_depth=12, bits=16)
    assert "more than the 1023 of bit_depth=10" in warned(in_16_bits, 10, bench, bit_depth=10, bits=16)
