"""What an image shows, how much of its range it uses, and when two files are the same picture."""

import io
import re
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image

from gateway.images.content import exceeded_depth, is_constant, narrow_range, why_nothing_shows
from gateway.images.decoding import Limits, decode_picture, read_header
from gateway.images.identity import pixel_digest

LIMITS = Limits(max_bytes=2**20, max_pixels=1_000_000)
CASES = Path(__file__).parents[3].parent / "shared" / "cases"
RAMP = np.tile(np.arange(0, 256, 4, dtype=np.uint8), (8, 1))


def png(pixels):
    done, data = cv2.imencode(".png", pixels if pixels.ndim == 2 else np.ascontiguousarray(pixels[..., [2, 1, 0, 3]]))
    assert done
    return data.tobytes()


def read(data, bit_depth=None):
    return decode_picture(data, "roi", read_header(data, "roi", LIMITS), bit_depth)


def rgba(alpha):
    return np.dstack([RAMP, RAMP[:, ::-1], RAMP, np.full_like(RAMP, alpha)])


@pytest.mark.parametrize(
    ("data", "says"),
    [
        (png(np.zeros((4, 6), np.uint8)), "every pixel has the value 0"),
        (png(np.full((4, 6), 255, np.uint8)), "every pixel has the value 255"),
        (png(np.full((4, 6), 4095, np.uint16)), "every pixel has the value 16"),
        (png(rgba(255)[:1, :1].repeat(5, 0)), r"every pixel has the value \(0, 252, 0\)"),
        (png(rgba(0)), "every pixel is fully transparent"),
        (
            png(np.array([[0, 60], [120, 3]], np.uint16)),
            "every pixel has the value 0 after scaling to 8 bits: .* from 0 to 120 of 65535",
        ),
    ],
)
def test_a_picture_that_shows_nothing_is_told_with_its_value(data, says):
    assert re.fullmatch(says, why_nothing_shows(read(data)) or "nothing was told")


def test_one_other_pixel_is_a_picture():
    pixels = np.zeros((4, 6), np.uint8)
    pixels[3, 5] = 1
    assert why_nothing_shows(read(png(pixels))) is None
    assert not is_constant(pixels)
    assert why_nothing_shows(read(png(rgba(1)))) is None


def test_values_that_use_a_sliver_of_the_range_are_told_with_what_was_found():
    assert narrow_range(read(png(RAMP))) is None
    assert "values from 100 to 128 of 0 to 255" in narrow_range(read(png(100 + RAMP // 9)))
    colour = np.dstack([100 + RAMP // 9, 10 + RAMP // 9, 240 + RAMP // 18, np.full_like(RAMP, 255)])
    assert narrow_range(read(png(colour))) is not None
    colour[..., 1] = RAMP
    assert narrow_range(read(png(colour))) is None


@pytest.mark.parametrize("bits", [8, 10, 12, 14])
def test_fewer_bits_than_the_file_has_are_told_until_they_are_stated(bits):
    stored = (RAMP.astype(np.uint32) * (2**bits - 1) // 252).astype(np.uint16)
    told = narrow_range(read(png(stored)))
    assert f"from 0 to {2**bits - 1} of 0 to 65535" in told
    assert f"bit_depth={bits}" in told
    assert narrow_range(read(png(stored), bits)) is None


def test_a_sliver_of_the_stated_depth_is_told():
    told = narrow_range(read(png(RAMP.astype(np.uint16) + 1000), 12))
    assert "from 1000 to 1252 of 0 to 4095" in told


def test_a_stated_depth_scales_the_values_of_the_camera():
    stored = np.array([[0, 2048, 4095, 5000]], np.uint16)
    np.testing.assert_array_equal(read(png(stored), 12).pixels, [[0, 128, 255, 255]])
    assert "5000 are more than the 4095 of bit_depth=12" in exceeded_depth(read(png(stored), 12))
    assert exceeded_depth(read(png(stored), 13)) is None
    assert exceeded_depth(read(png(stored))) is None


def test_a_stated_depth_leaves_8_bits_alone_and_is_told():
    picture = read(png(RAMP), 12)
    np.testing.assert_array_equal(picture.pixels, RAMP)
    assert "8 bits a sample" in exceeded_depth(picture)
    assert exceeded_depth(read(png(RAMP), 8)) is None


def test_a_stated_depth_leaves_alpha_alone():
    pixels = rgba(128).astype(np.uint16) * 16
    pixels[..., 3] = 65535
    np.testing.assert_array_equal(read(png(pixels), 12).pixels[..., 0], np.rint(RAMP * 16.0 / 4095 * 255))


def test_one_picture_in_other_files_has_one_identity():
    files = []
    for kind in ("PNG", "BMP", "TIFF"):
        for mode in ("L", "RGB"):
            file = io.BytesIO()
            Image.fromarray(RAMP).convert(mode).save(file, kind)
            files.append(file.getvalue())
    assert len({pixel_digest(read(data).pixels) for data in files}) == 1


def test_another_picture_has_another_identity():
    one_off = RAMP.copy()
    one_off[7, 63] ^= 1
    colour = np.dstack([RAMP, RAMP, one_off])
    pictures = [RAMP, one_off, RAMP.T.copy(), RAMP.reshape(4, 128), colour, colour[..., ::-1].copy()]
    assert len({pixel_digest(pixels) for pixels in pictures}) == len(pictures)


@pytest.mark.skipif(not CASES.is_dir(), reason="../shared/cases is not there")
def test_the_cases_are_told():
    assert why_nothing_shows(read((CASES / "black.png").read_bytes())) is not None
    for name in ("alpha0_good.png", "alpha0_crack.png"):
        assert why_nothing_shows(read((CASES / name).read_bytes())) == "every pixel is fully transparent"
    base = read((CASES / "base.png").read_bytes())
    assert why_nothing_shows(base) is None
    mono12 = (CASES / "mono12_in_16.png").read_bytes()
    assert "bit_depth=12" in narrow_range(read(mono12))
    assert pixel_digest(read(mono12, 12).pixels) == pixel_digest(base.pixels)
