"""A BMP is read by its own masks."""

import struct
from pathlib import Path

import cv2
import numpy as np
import pytest

from gateway.errors import UnsupportedImageError
from gateway.images.content import why_nothing_shows
from gateway.images.decoding import Limits, decode_picture, read_header

LIMITS = Limits(max_bytes=2**20, max_pixels=1_000_000)
CASES = Path(__file__).parents[3].parent / "shared" / "cases"
RGB = np.random.default_rng(0).integers(0, 256, (5, 7, 3)).astype(np.uint8)
BGRA, RGBA = (0xFF0000, 0xFF00, 0xFF, 0xFF000000), (0xFF, 0xFF00, 0xFF0000, 0xFF000000)
UNCOMPRESSED, BITFIELDS, ALPHA_BITFIELDS = 0, 3, 6


def bmp(words, bits, *, compression=BITFIELDS, masks=(), header=40, top_down=False, padding=True):
    """A BMP of little-endian words [H, W]."""
    height, width = words.shape
    rows = [row.astype("<u4" if bits == 32 else "<u2").tobytes() for row in (words if top_down else words[::-1])]
    row = -(-width * bits // 32) * 4
    pixels = b"".join(r.ljust(row, b"\xaa") for r in rows)
    if not padding:
        pixels = pixels[: len(pixels) - row + len(rows[-1])]
    signed = -height if top_down else height
    info = struct.pack("<IiiHHIIiiII", header, width, signed, 1, bits, compression, len(pixels), 0, 0, 0, 0)
    in_or_behind = struct.pack(f"<{len(masks)}I", *masks)
    info = info + in_or_behind if header == 40 else (info + in_or_behind).ljust(header, b"\0")
    return b"BM" + struct.pack("<IHHI", 14 + len(info) + len(pixels), 0, 0, 14 + len(info)) + info + pixels


def packed(masks, alpha=0):
    """RGB in words, as the masks say."""
    words = np.full(RGB.shape[:2], alpha, np.uint64)
    for channel, mask in zip(np.moveaxis(RGB, 2, 0), masks, strict=False):
        shift = (mask & -mask).bit_length() - 1
        largest = mask >> shift
        words |= (channel.astype(np.uint64) * largest // 255) << np.uint64(shift)
    return words.astype(np.uint32)


def read(data):
    return decode_picture(data, "roi.bmp", read_header(data, "roi.bmp", LIMITS))


@pytest.mark.parametrize("fourth", [0, 0x55000000, 0xFF000000])
@pytest.mark.parametrize("top_down", [False, True])
@pytest.mark.parametrize(
    "options",
    [
        {"compression": UNCOMPRESSED},
        {"masks": BGRA[:3]},
        {"masks": BGRA[:3], "header": 52},
        {"masks": (*BGRA[:3], 0), "header": 124},
    ],
    ids=["none", "behind 40 bytes", "in 52 bytes", "in 124 bytes"],
)
def test_a_fourth_byte_without_a_mask_means_nothing(options, top_down, fourth):
    picture = read(bmp(packed(BGRA) | np.uint32(fourth), 32, top_down=top_down, **options))
    np.testing.assert_array_equal(picture.pixels, RGB)
    assert why_nothing_shows(picture) is None


@pytest.mark.parametrize("options", [{"header": 56}, {"header": 124}, {"compression": ALPHA_BITFIELDS}], ids=str)
def test_an_alpha_mask_is_alpha(options):
    opaque = bmp(packed(RGBA, 0xFF000000), 32, masks=RGBA, **options)
    np.testing.assert_array_equal(read(opaque).pixels, RGB)
    assert why_nothing_shows(read(bmp(packed(RGBA), 32, masks=RGBA, **options))) == "every pixel is fully transparent"


@pytest.mark.parametrize(
    ("bits", "masks"),
    [
        (16, (0x7C00, 0x3E0, 0x1F)),
        (16, (0xF800, 0x7E0, 0x1F)),
        (16, (0xF00, 0xF0, 0xF)),
        (32, (0x3FF00000, 0xFFC00, 0x3FF)),
        (32, RGBA[:3]),
    ],
)
def test_masks_of_any_width_are_scaled_to_8_bits(bits, masks):
    found = read(bmp(packed(masks), bits, masks=masks)).pixels
    assert np.abs(found.astype(int) - RGB).max() <= 17  # a step of 4 bits


def test_16_bits_without_masks_are_5_bits_a_channel():
    white_red_blue = np.array([[0x7FFF, 0x7C00, 0x001F]])
    found = read(bmp(white_red_blue, 16, compression=UNCOMPRESSED)).pixels
    assert found.tolist() == [[[255, 255, 255], [255, 0, 0], [0, 0, 255]]]


def test_24_bits_are_what_opencv_reads():
    data = cv2.imencode(".bmp", RGB[..., ::-1])[1].tobytes()
    np.testing.assert_array_equal(read(data).pixels, RGB)


def test_the_padding_of_the_last_row_may_be_missing():
    masks = (0xF800, 0x7E0, 0x1F)
    whole, short = (bmp(packed(masks), 16, masks=masks, padding=padding) for padding in (True, False))
    np.testing.assert_array_equal(read(short).pixels, read(whole).pixels)
    with pytest.raises(UnsupportedImageError, match="truncated or damaged"):
        read(short[:-1])


@pytest.mark.parametrize(
    ("data", "says"),
    [
        (bmp(packed(BGRA), 32, masks=(0xFF, 0, 0xFF00)), "colour masks 0xff, 0x0, 0xff00"),
        (bmp(packed(BGRA), 32, masks=(0xFF, 0x500, 0xFF0000)), "colour masks"),
        (bmp(packed(BGRA), 16, masks=(0xFF0000, 0xFF00, 0xFF)), "colour masks"),
        (bmp(packed(BGRA), 32, compression=4), "compression 4"),
        (bmp(packed(BGRA), 32, compression=1), "compression 1"),
        (bmp(packed(BGRA), 32, header=30), "header of 30 bytes"),
        (bmp(packed(BGRA), 32)[:40], "truncated"),
        (b"BM", "truncated"),
        (b"BM" + bytes(200), "header of 0 bytes"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_what_is_not_served_is_named(data, says):
    with pytest.raises(UnsupportedImageError, match=says):
        read(data)


@pytest.mark.skipif(not CASES.is_dir(), reason="../shared/cases is not there")
def test_the_case_is_read():
    base = (CASES / "base.png").read_bytes()
    found = read((CASES / "bmp32_bitfields_x0.bmp").read_bytes()).pixels
    np.testing.assert_array_equal(found[..., 0], read(base).pixels)
    np.testing.assert_array_equal(found[..., 0], found[..., 2])
