"""A JPEG is decoded whole or refused: libjpeg itself goes on after damage."""

import io
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image

from gateway.errors import UnsupportedImageError
from gateway.images.decoding import Limits, decode, read_header

LIMITS = Limits(max_bytes=2**20, max_pixels=1_000_000)
CASES = Path(__file__).parents[3].parent / "shared" / "cases"
needs_cases = pytest.mark.skipif(not CASES.is_dir(), reason="../shared/cases is not there")
RGB = cv2.GaussianBlur(np.random.default_rng(0).integers(0, 256, (160, 128, 3)).astype(np.uint8), (0, 0), 8)


def encoded(mode="RGB", **options):
    file = io.BytesIO()
    Image.fromarray(RGB).convert(mode).save(file, "JPEG", quality=75, **options)
    return file.getvalue()


def read(data):
    return decode(data, "roi.jpg", read_header(data, "roi.jpg", LIMITS))


def without(data, marker):
    """The file without segments of a marker."""
    kept, at = bytearray(data[:2]), 2
    while data[at + 1] != 0xDA:
        length = 2 + int.from_bytes(data[at + 2 : at + 4])
        if data[at + 1] != marker:
            kept += data[at : at + length]
        at += length
    return bytes(kept + data[at:])


def scan_of(data):
    start = data.rindex(b"\xff\xda")
    return start + 2 + int.from_bytes(data[start + 2 : start + 4]), len(data) - 2


@pytest.mark.parametrize("options", [{}, {"restart_marker_rows": 2}, {"progressive": True}], ids=str)
@pytest.mark.parametrize("mode", ["L", "RGB", "CMYK"])
def test_most_damage_inside_the_scan_is_refused(mode, options):
    data = encoded(mode, **options)
    start, stop = scan_of(data)
    rng = np.random.default_rng(0)
    refused = 0
    for _ in range(60):
        damaged = bytearray(data)
        damaged[rng.integers(start, stop)] ^= rng.integers(1, 256)
        try:
            read(bytes(damaged))
        except UnsupportedImageError:
            refused += 1
    # The rest decodes as a legal picture: a JPEG has no checksum. Before, no damage was noticed.
    assert refused >= (15 if options else 50)


@pytest.mark.parametrize("missing", [0.05, 0.5, 0.95])
@pytest.mark.parametrize("mode", ["L", "RGB"])
def test_a_scan_that_lost_its_end_is_refused_although_the_end_marker_is_there(mode, missing):
    data = encoded(mode)
    start, stop = scan_of(data)
    with pytest.raises(UnsupportedImageError, match="truncated or damaged"):
        read(data[: stop - int((stop - start) * missing)] + data[stop:])


@pytest.mark.parametrize(
    "change",
    [
        lambda data: data + b"\0" * 512,
        lambda data: data + data,
        lambda data: without(data, 0xC4),
        lambda data: without(data, 0xE0),
        lambda data: data[:2] + b"\xff\xfe\x00\x06note" + data[2:],
        lambda data: data[:2] + b"\xff\xff\xff" + data[2:],
    ],
    ids=["zeros behind", "a file behind", "no Huffman tables", "no JFIF marker", "a comment", "fill bytes"],
)
@pytest.mark.parametrize("mode", ["L", "RGB"])
def test_what_programs_and_cameras_write_is_read(mode, change):
    data = encoded(mode)
    np.testing.assert_array_equal(read(change(data)), read(data))


def test_inks_become_colours():
    shown = np.asarray(Image.open(io.BytesIO(encoded("CMYK"))).convert("RGB")).astype(int)
    assert np.abs(read(encoded("CMYK")).astype(int) - shown).max() <= 1


def test_grey_stays_grey():
    assert read(encoded("L")).shape == (160, 128)


def test_other_bits_than_8_are_named():
    data = bytearray(encoded("L"))
    frame = data.index(b"\xff\xc0")
    data[frame + 4] = 12
    with pytest.raises(UnsupportedImageError, match="12 bits a sample") as refused:
        read(bytes(data))
    assert "PNG or TIFF" in refused.value.hint


@needs_cases
def test_the_cases_are_told():
    with pytest.raises(UnsupportedImageError, match="truncated or damaged"):
        read((CASES / "jpeg_cut_half_then_eoi.jpg").read_bytes())
    with pytest.raises(UnsupportedImageError, match="12 bits a sample"):
        read((CASES / "jpeg_12bit.jpg").read_bytes())
    assert read((CASES / "jpeg_whole.jpg").read_bytes()).ndim == 2


def test_every_real_tile_is_read():
    folder = CASES.parent / "data" / "magnetic_tile"
    tiles = [path for part in ("train", "test") for path in sorted((folder / part).rglob("*.jpg"))]
    if not tiles:
        pytest.skip("../shared/data/magnetic_tile is not there")
    for tile in tiles:
        assert read(tile.read_bytes()).ndim == 2
