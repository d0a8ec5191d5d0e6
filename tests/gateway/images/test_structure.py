import io

import cv2
import numpy as np
import pytest
from PIL import Image

from gateway.images.structure import excess_of, inflates_beyond_its_pixels
from tests import bombs


@pytest.mark.parametrize("n", [0, 990])
def test_what_encoders_write_passes(n):
    assert excess_of(bombs.png([(b"tEXt", b"a\0b")] * n)) is None
    assert excess_of(bombs.jpeg_of_segments(n, b"\xff\xfe\x00\x04ab")) is None
    assert excess_of(bombs.jpeg_of_scans(n // 11, (64, 64))) is None


@pytest.mark.parametrize(
    ("data", "says"),
    [
        (bombs.png([(b"tEXt", b"a\0b")] * 1000), "chunks"),
        (bombs.png([(b"pRVt", b"")] * 1000), "chunks"),
        (bombs.jpeg_of_segments(1001, b"\xff\xfe\x00\x02"), "segments"),
        (bombs.jpeg_of_segments(1001, b"\xff"), "segments"),
        (bombs.jpeg_of_segments(1001, b"\xff\x00"), "segments"),
        (bombs.jpeg_of_scans(101, (64, 64)), "scans"),
    ],
)
def test_excess_is_named(data, says):
    assert says in excess_of(data)


def test_data_that_goes_on_after_the_last_row_is_noticed():
    assert inflates_beyond_its_pixels(bombs.png(n_zeros=800_000_000), 100, 100)
    assert not inflates_beyond_its_pixels(bombs.png(n_zeros=1_000_000), 100, 100)  # a moment's work


@pytest.mark.parametrize("kind", ["L", "RGB", "RGBA", "P", "1", "I;16"])
@pytest.mark.parametrize("interlaced", [False, True])
def test_pixels_as_large_as_their_rows_pass(kind, interlaced):
    # Noise: nothing of it can be compressed.
    noise = np.random.default_rng(0).integers(0, 256, (1500, 1501, 4), np.uint8)
    image = Image.fromarray(noise)
    image = Image.fromarray(noise.view(np.uint16)[..., 0]) if kind == "I;16" else image.convert(kind)
    buffer = io.BytesIO()
    image.save(buffer, "PNG", interlace=interlaced)
    assert not inflates_beyond_its_pixels(buffer.getvalue(), *image.size)


def test_noise_does_not_count_as_scans():
    noise = np.random.default_rng(0).integers(0, 256, (3000, 3000), np.uint8)
    for extension in (".jpg", ".png"):
        assert excess_of(cv2.imencode(extension, noise)[1].tobytes()) is None


@pytest.mark.parametrize(
    "data", [b"", b"\xff\xd8", b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff\xe0", b"II*\0"]
)
def test_truncated_files_pass_here_and_fail_in_the_decoder(data):
    assert excess_of(data) is None
