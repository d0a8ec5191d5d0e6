"""PNG, JPEG, BMP and TIFF files, compared with Pillow, which decodes independently of the libraries used."""

import io
import struct
import zlib

import cv2
import numpy as np
import pytest
from PIL import ExifTags, Image, ImageOps, PngImagePlugin

from gateway.errors import GatewayError, TooLargeError, UnsupportedImageError
from gateway.images.decoding import Limits, decode, read_header, to_model_input

LIMITS = Limits(max_bytes=2**20, max_pixels=1_000_000)
NOISE = np.random.default_rng(0).integers(0, 256, (40, 56, 3)).astype(np.uint8)
RGB = cv2.GaussianBlur(NOISE, (0, 0), 1.5)
GREY = RGB[..., 0].copy()
ALPHA = np.tile(np.linspace(0, 255, RGB.shape[1]).astype(np.uint8), (RGB.shape[0], 1))


def encoded(image, kind, **options):
    file = io.BytesIO()
    (image if isinstance(image, Image.Image) else Image.fromarray(image)).save(file, kind, **options)
    return file.getvalue()


def read(data):
    header = read_header(data, "roi.png", LIMITS)
    image = decode(data, "roi.png", header)
    assert header.upright_size == image.shape[1::-1]
    assert image.dtype == np.uint8
    return image


def oriented(value):
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = value
    return exif


def png_of_header(width, height, deflated=b""):
    def chunk(name, body):
        return struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))

    header = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", deflated) + chunk(b"IEND", b"")


@pytest.mark.parametrize("kind", ["PNG", "BMP", "TIFF"])
@pytest.mark.parametrize("pixels", [GREY, RGB], ids=["grey", "rgb"])
def test_a_lossless_file_gives_its_pixels_back(kind, pixels):
    np.testing.assert_array_equal(read(encoded(pixels, kind)), pixels)


@pytest.mark.parametrize("options", [{}, {"progressive": True}, {"subsampling": 0}], ids=str)
@pytest.mark.parametrize("pixels", [GREY, RGB], ids=["grey", "rgb"])
def test_a_jpeg_is_what_pillow_sees(pixels, options):
    data = encoded(pixels, "JPEG", quality=95, **options)
    seen = np.asarray(Image.open(io.BytesIO(data))).astype(int)
    # Two builds of libjpeg may interpolate colour differently, no more than that.
    assert np.abs(read(data).astype(int) - seen).mean() < 1


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("kind", ["PNG", "TIFF"])
@pytest.mark.parametrize("pixels", [GREY, RGB, GREY.astype(np.uint16) * 257], ids=["grey", "rgb", "16 bits"])
def test_orientation_is_applied_as_pillow_applies_it_and_once(kind, pixels, orientation):
    data = encoded(pixels, kind, exif=oriented(orientation))
    upright = np.asarray(ImageOps.exif_transpose(Image.open(io.BytesIO(data))))
    if upright.dtype == np.uint16:
        upright = (upright // 257).astype(np.uint8)
    np.testing.assert_array_equal(read(data), upright)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_a_rotated_jpeg_is_upright(orientation):
    data = encoded(GREY, "JPEG", quality=95, exif=oriented(orientation))
    upright = np.asarray(ImageOps.exif_transpose(Image.open(io.BytesIO(data)))).astype(int)
    image = read(data)
    assert image.shape == upright.shape
    assert np.abs(image.astype(int) - upright).max() <= 1


def test_an_orientation_out_of_range_is_none():
    np.testing.assert_array_equal(read(encoded(GREY, "PNG", exif=oriented(9))), GREY)


@pytest.mark.parametrize("kind", ["PNG", "TIFF"])
def test_16_bits_are_divided_by_257_whatever_the_image_holds(kind):
    dark = np.arange(40 * 56, dtype=np.uint16).reshape(40, 56)
    np.testing.assert_array_equal(read(encoded(dark, kind)), np.rint(dark / 257))
    full = np.full((40, 56), 65535, np.uint16)
    np.testing.assert_array_equal(read(encoded(full, kind)), 255)


@pytest.mark.parametrize("kind", ["PNG", "TIFF"])
def test_transparency_is_blended_over_black(kind):
    rgba = np.dstack([RGB, ALPHA])
    np.testing.assert_array_equal(read(encoded(rgba, kind)), (RGB.astype(int) * ALPHA[..., None] + 127) // 255)


def test_grey_transparency_is_blended_over_black():
    grey_alpha = Image.merge("LA", [Image.fromarray(GREY), Image.fromarray(ALPHA)])
    blended = (GREY.astype(int) * ALPHA + 127) // 255
    for channel in np.moveaxis(np.atleast_3d(read(encoded(grey_alpha, "PNG"))), 2, 0):
        np.testing.assert_array_equal(channel, blended)


def test_opaque_transparency_changes_nothing():
    np.testing.assert_array_equal(read(encoded(np.dstack([RGB, np.full_like(ALPHA, 255)]), "PNG")), RGB)


@pytest.mark.parametrize("kind", ["PNG", "BMP", "TIFF"])
def test_a_palette_is_looked_up(kind):
    palette = Image.fromarray(RGB).quantize(16)
    np.testing.assert_array_equal(read(encoded(palette, kind)), np.asarray(palette.convert("RGB")))


@pytest.mark.parametrize("kind", ["PNG", "BMP", "TIFF"])
def test_one_bit_is_black_and_white(kind):
    bits = GREY > 128
    np.testing.assert_array_equal(np.atleast_3d(read(encoded(bits, kind)))[..., 0], bits * np.uint8(255))


def test_the_first_picture_of_a_multi_picture_jpeg_counts():
    pictures = encoded(GREY, "MPO", save_all=True, append_images=[Image.fromarray(255 - GREY)])
    assert np.abs(read(pictures).astype(int) - GREY).mean() < 5


def test_the_content_says_the_format_not_the_name():
    assert read_header(encoded(GREY, "JPEG"), "roi.png", LIMITS).extension == "jpg"


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "BMP", "TIFF"])
@pytest.mark.parametrize("pixels", [GREY, RGB], ids=["grey", "rgb"])
@pytest.mark.parametrize("cut", [1, 2, 9, 12, 13, 0.02, 0.1, 0.3, 0.5, 0.7, 0.9, 0.99])
def test_a_cut_file_is_refused_by_name_and_never_half_decoded(kind, pixels, cut):
    data = encoded(pixels, kind)
    short = data[: int(len(data) * cut)] if isinstance(cut, float) else data[:-cut]
    with pytest.raises(UnsupportedImageError, match=r"^roi\.png: "):
        read(short)


@pytest.mark.parametrize(
    ("data", "says"),
    [
        (b"", "empty"),
        (b"this is a text called roi.png", "not a PNG, JPEG, BMP or TIFF"),
        (b"\x89PNG\r\n\x1a\n", "not a PNG|damaged"),
        (b"\xff\xd8\xff", "not a PNG|damaged"),
        (encoded(GREY, "GIF"), "not a PNG, JPEG, BMP or TIFF"),
        (encoded(GREY, "WEBP"), "not a PNG, JPEG, BMP or TIFF"),
        (encoded(GREY.astype(np.float32), "TIFF"), "floating point"),
        (encoded(Image.fromarray(RGB).convert("CMYK"), "TIFF"), "CMYK"),
        (png_of_header(40, 56, b"not deflated"), "truncated or damaged"),
        (png_of_header(40, 56, zlib.compress(b"too short")), "truncated or damaged"),
        (png_of_header(0, 56), "not a PNG|damaged|0 × 56"),
    ],
    ids=lambda value: value[:24] if isinstance(value, bytes) else "",
)
def test_what_is_not_served_is_refused_with_its_reason(data, says):
    with pytest.raises(UnsupportedImageError, match=says):
        read(data)


@pytest.mark.parametrize("length", [0x00200000, 0x7FFFFFFF, 0xFFFFFFFF])
def test_a_png_chunk_that_claims_more_than_the_file_has_is_refused_before_room_is_made_for_it(length):
    data = bytearray(encoded(RGB, "PNG"))
    at = data.index(b"IDAT") - 4
    data[at : at + 4] = length.to_bytes(4)
    with pytest.raises(UnsupportedImageError, match="truncated or damaged"):
        read_header(bytes(data), "roi.png", LIMITS)


def test_damaged_pixels_of_a_png_are_refused():
    data = bytearray(encoded(RGB, "PNG"))
    middle = len(data) // 2
    data[middle : middle + 20] = bytes(20)
    with pytest.raises(UnsupportedImageError, match="truncated or damaged"):
        read(bytes(data))


def test_size_is_judged_by_the_header_before_anything_is_decoded(monkeypatch):
    def must_not_decode(*_):
        raise AssertionError("decoded")

    monkeypatch.setattr(PngImagePlugin.PngImageFile, "load", must_not_decode)
    bomb = png_of_header(60_000, 60_000, zlib.compress(bytes(10_000_000)))
    with pytest.raises(TooLargeError, match="60000 × 60000 pixels; at most 1000000"):
        read_header(bomb, "bomb.png", LIMITS)
    assert read_header(encoded(GREY, "PNG"), "roi.png", LIMITS).upright_size == (56, 40)


def test_limits_name_the_value_and_the_limit():
    with pytest.raises(TooLargeError, match="2097152 bytes; at most 1048576"):
        read_header(bytes(2**21), "roi.bmp", LIMITS)
    with pytest.raises(TooLargeError, match="70000 × 2 pixels; a side has at most 65500"):
        read_header(png_of_header(70_000, 2), "line.png", LIMITS)


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "BMP", "TIFF"])
def test_damaged_bytes_never_raise_anything_else(kind):
    rng = np.random.default_rng(1)
    data = np.frombuffer(encoded(RGB, kind), np.uint8)
    for _ in range(100):
        damaged = data.copy()
        where = rng.integers(0, min(len(data), 600), 4)
        damaged[where] = rng.integers(0, 256, 4)
        try:
            header = read_header(damaged.tobytes(), "roi", LIMITS)
            image = decode(damaged.tobytes(), "roi", header)
        except GatewayError:
            continue
        assert image.shape[1::-1] == header.upright_size


def test_the_model_sees_grey_as_three_equal_channels():
    np.testing.assert_array_equal(to_model_input(GREY, 28), to_model_input(np.dstack([GREY] * 3), 28))
    assert to_model_input(GREY, 28).shape == (28, 28, 3)


@pytest.mark.parametrize("colour", [False, True], ids=["grey", "rgb"])
@pytest.mark.parametrize(
    ("length", "across"), [(1512, 377), (1512, 378), (1512, 379), (1512, 40), (1512, 1000), (381, 300), (757, 377)]
)
def test_a_thin_line_keeps_its_contrast_at_every_position(length, across, colour):
    size, width = 378, 2
    expected = width * size / length  # of the line's contrast, added up over the columns that it comes to
    near_the_ends = {*range(24), *range(length - width - 24, length - width + 1)}
    for at in sorted(near_the_ends | {*range(0, length - width, 61)}):
        image = np.full((across, length), 55, np.uint8)
        image[:, at : at + width] = 255
        image = np.dstack([image] * 3) if colour else image
        for upright in (image, np.ascontiguousarray(image.swapaxes(0, 1))):
            found = to_model_input(upright, size)[..., 0]
            found = found if upright is image else found.T
            contrast = (found[size // 2].astype(float) - 55) / 200
            assert contrast.sum() == pytest.approx(expected, abs=0.03)
            assert contrast.max() > 0.45 * min(1, expected)


@pytest.mark.parametrize("size_hw", [(28, 28), (40, 28), (40, 56), (20, 28), (20, 14), (29, 29)])
def test_an_image_that_only_shrinks_or_only_grows_is_resized_in_one_step(size_hw):
    image = np.ascontiguousarray(RGB[: size_hw[0], : size_hw[1]])
    rule = cv2.INTER_AREA if max(size_hw) > 28 else cv2.INTER_LINEAR
    np.testing.assert_array_equal(to_model_input(image, 28), cv2.resize(image, (28, 28), interpolation=rule))


def test_an_image_of_the_models_size_is_not_resampled():
    square = np.ascontiguousarray(RGB[:28, :28])
    np.testing.assert_array_equal(to_model_input(square, 28), square)
