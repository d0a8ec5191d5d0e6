"""A PNG whose data is inflated beforehand has the same pixels, and a file that is not ordinary stays as it is."""

import io
import struct
import zlib

import cv2
import numpy as np
import pytest
from PIL import Image

from gateway.images.png import with_stored_pixels

GREY = np.random.default_rng(0).integers(0, 256, (300, 250)).astype(np.uint8)
SIGNATURE = b"\x89PNG\r\n\x1a\n"


def chunk(kind, data):
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def png(*parts, bits=8, colour_type=0, interlace=0, shape=GREY.shape):
    """A PNG of the given chunks of pixels."""
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", shape[1], shape[0], bits, colour_type, 0, 0, interlace))
    return SIGNATURE + header + b"".join(parts) + chunk(b"IEND", b"")


def rows(image, *, filters=(0,)):
    """Rows as a PNG holds them. Whatever their filter, a decoder accepts the bytes behind it."""
    first = np.resize(np.array(filters, np.uint8), (len(image), 1))
    return np.hstack([first, image.reshape(len(image), -1).view(np.uint8)]).tobytes()


def decoded(data):
    return cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED)


def saved(mode):
    file = io.BytesIO()
    Image.fromarray(GREY).convert(mode).save(file, "PNG")
    return file.getvalue()


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGB", "RGBA", "I;16"])
def test_pixels_of_every_kind_are_those_of_the_decoder(mode):
    data = saved(mode)
    stored = with_stored_pixels(data)
    assert stored != data
    np.testing.assert_array_equal(decoded(stored), decoded(data))


def test_every_filter_and_pixels_in_several_chunks_stay_the_same():
    pixels = zlib.compress(rows(GREY, filters=(0, 1, 2, 3, 4)))
    data = png(chunk(b"IDAT", pixels[:1000]), chunk(b"IDAT", pixels[1000:]))
    stored = with_stored_pixels(data)
    assert stored.count(b"IDAT") == 1
    np.testing.assert_array_equal(decoded(stored), decoded(data))


def test_other_chunks_stay():
    data = png(
        chunk(b"gAMA", struct.pack(">I", 45455)), chunk(b"IDAT", zlib.compress(rows(GREY))), chunk(b"tEXt", b"a\0b")
    )
    stored = with_stored_pixels(data)
    assert stored != data
    assert chunk(b"gAMA", struct.pack(">I", 45455)) in stored
    assert chunk(b"tEXt", b"a\0b") in stored


PIXELS = zlib.compress(rows(GREY))
WRONG_CHECKSUM = chunk(b"IDAT", PIXELS)[:-1] + bytes([chunk(b"IDAT", PIXELS)[-1] ^ 1])


@pytest.mark.parametrize(
    "data",
    [
        pytest.param(png(WRONG_CHECKSUM), id="checksum of the chunk"),
        pytest.param(png(chunk(b"IDAT", PIXELS[:-1] + bytes([PIXELS[-1] ^ 1]))), id="checksum of the data"),
        pytest.param(png(chunk(b"IDAT", PIXELS[:-50])), id="truncated"),
        pytest.param(png(chunk(b"IDAT", zlib.compress(rows(GREY[1:])))), id="too few rows"),
        pytest.param(png(chunk(b"IDAT", zlib.compress(rows(np.vstack([GREY, GREY]))))), id="too many rows"),
        pytest.param(png(chunk(b"IDAT", b"not deflated")), id="not deflated"),
        pytest.param(png(), id="no pixels"),
        pytest.param(png(chunk(b"IDAT", PIXELS), interlace=1), id="interlaced"),
        pytest.param(png(chunk(b"IDAT", PIXELS), colour_type=5), id="unknown colour type"),
        pytest.param(png(chunk(b"IDAT", PIXELS), shape=(2**16, 2**16)), id="large"),
        pytest.param(
            png(chunk(b"IDAT", PIXELS[:99]), chunk(b"tEXt", b"a\0b"), chunk(b"IDAT", PIXELS[99:])), id="chunk between"
        ),
        pytest.param(png(chunk(b"IDAT", PIXELS))[:-100], id="file ends early"),
        pytest.param(SIGNATURE, id="no header"),
        pytest.param(b"BM", id="not a PNG"),
    ],
)
def test_a_file_that_is_not_ordinary_is_left_to_the_decoder(data):
    assert with_stored_pixels(data) is data
