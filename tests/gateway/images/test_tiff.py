"""A TIFF is read by its own tags, or refused with the name of what is not served."""

import io
import struct
from pathlib import Path

import imagecodecs
import numpy as np
import pytest
import tifffile

from gateway.errors import TooLargeError, UnsupportedImageError
from gateway.images.content import why_nothing_shows
from gateway.images.decoding import Limits, decode_picture, read_header
from gateway.images.identity import pixel_digest

LIMITS = Limits(max_bytes=2**20, max_pixels=1_000_000)
CASES = Path(__file__).parents[3].parent / "shared" / "cases"
RNG = np.random.default_rng(0)
GREY16 = RNG.integers(0, 65536, (37, 50)).astype(np.uint16)
RGB16 = RNG.integers(0, 65536, (37, 50, 3)).astype(np.uint16)
GREY, RGB = (GREY16 >> 8).astype(np.uint8), (RGB16 >> 8).astype(np.uint8)
IMAGES = {"grey 8": GREY, "RGB 8": RGB, "grey 16": GREY16, "RGB 16": RGB16}
EACH_IMAGE = [pytest.param(image, id=name) for name, image in IMAGES.items()]


def tiff(image, **options):
    file = io.BytesIO()
    photometric = "rgb" if image.ndim == 3 else "minisblack"
    tifffile.imwrite(file, image, **{"photometric": photometric, "metadata": None, **options})
    return file.getvalue()


def planar(image, **options):
    return tiff(np.moveaxis(image, 2, 0), planarconfig="separate", photometric="rgb", **options)


def raw_tiff(width, height, pixels, tags=(), *, order="<"):
    """A TIFF of one strip; `tags` add to the usual ones or replace them: code -> (type, values)."""
    fields = {256: (4, [width]), 257: (4, [height]), 258: (3, [8]), 259: (3, [1]), 262: (3, [1]), 273: (4, [8])}
    fields |= {277: (3, [1]), 278: (4, [height]), 279: (4, [len(pixels)]), **dict(tags)}
    behind = 8 + len(pixels)
    entries, values = b"", b""
    for code, (kind, numbers) in sorted(fields.items()):
        packed = struct.pack(f"{order}{len(numbers)}{ {1: 'B', 3: 'H', 4: 'I', 7: 'B'}[kind] }", *numbers)
        if len(packed) > 4:
            place = behind + 2 + 12 * len(fields) + 4 + len(values)
            values, packed = values + packed, struct.pack(f"{order}I", place)
        entries += struct.pack(f"{order}HHI", code, kind, len(numbers)) + packed.ljust(4, b"\0")
    start = (b"II*\0" if order == "<" else b"MM\0*") + struct.pack(f"{order}I", behind)
    return start + pixels + struct.pack(f"{order}H", len(fields)) + entries + bytes(4) + values


def read(data, limits=LIMITS):
    header = read_header(data, "roi.tif", limits)
    picture = decode_picture(data, "roi.tif", header)
    assert picture.pixels.shape[1::-1] == header.upright_size
    return picture


def to_8_bits(image, bits=16):
    return image if image.dtype == np.uint8 else np.rint(image / ((1 << bits) - 1) * 255).astype(np.uint8)


@pytest.mark.parametrize("image", EACH_IMAGE)
@pytest.mark.parametrize("byteorder", ["<", ">"])
@pytest.mark.parametrize("bigtiff", [False, True])
def test_either_byte_order_and_bigtiff_are_read(image, byteorder, bigtiff):
    picture = read(tiff(image, byteorder=byteorder, bigtiff=bigtiff))
    np.testing.assert_array_equal(picture.pixels, to_8_bits(image))
    assert picture.samples.bits == 8 * image.itemsize


@pytest.mark.parametrize("image", EACH_IMAGE)
@pytest.mark.parametrize("predictor", [None, True])
@pytest.mark.parametrize("layout", [{}, {"rowsperstrip": 5}, {"tile": (16, 32)}], ids=str)
@pytest.mark.parametrize("compression", ["lzw", "zlib", "adobe_deflate", "zstd", "packbits", None])
def test_every_served_compression_gives_the_pixels_back(image, compression, layout, predictor):
    if predictor and compression in (None, "packbits"):
        predictor = None
    data = tiff(image, compression=compression, predictor=predictor, **layout)
    np.testing.assert_array_equal(read(data).pixels, to_8_bits(image))


@pytest.mark.parametrize("image", [RGB, RGB16], ids=["8", "16"])
@pytest.mark.parametrize(
    "options", [{}, {"compression": "lzw", "predictor": True}, {"tile": (16, 16)}, {"rowsperstrip": 4}]
)
def test_planes_are_put_together(image, options):
    np.testing.assert_array_equal(read(planar(image, **options)).pixels, to_8_bits(image))


@pytest.mark.parametrize("bits", [1, 2, 4, 8, 9, 10, 11, 12, 13, 14, 15, 16])
@pytest.mark.parametrize("photometric", [0, 1])
@pytest.mark.parametrize("order", ["<", ">"])
def test_any_served_number_of_bits_fills_the_range_from_black_to_white(bits, photometric, order):
    values = np.arange(40).reshape(5, 8) % (1 << bits)
    values[0, 0] = (1 << bits) - 1
    if bits == 16:
        pixels = values.astype(f"{order}u2").tobytes()
    elif bits == 8:
        pixels = values.astype(np.uint8).tobytes()
    else:
        bit_rows = (values[..., None] >> np.arange(bits)[::-1] & 1).reshape(5, -1)
        pixels = np.packbits(bit_rows, axis=1).tobytes()
    data = raw_tiff(8, 5, pixels, {258: (3, [bits]), 262: (3, [photometric])}, order=order)
    expected = values if photometric == 1 else (1 << bits) - 1 - values
    picture = read(data)
    np.testing.assert_array_equal(picture.pixels, np.rint(expected / ((1 << bits) - 1) * 255))
    assert picture.samples.bits == max(8, bits)


def test_bits_may_be_stored_in_reverse():
    pixels = np.packbits(np.arange(64).reshape(4, 16) % 3 == 0, axis=1)
    usual = read(raw_tiff(16, 4, pixels.tobytes(), {258: (3, [1])})).pixels
    turned = imagecodecs.bitorder_decode(pixels.tobytes())
    np.testing.assert_array_equal(read(raw_tiff(16, 4, turned, {258: (3, [1]), 266: (3, [2])})).pixels, usual)


@pytest.mark.parametrize("image", [RGB, RGB16, GREY, GREY16], ids=["RGB 8", "RGB 16", "grey 8", "grey 16"])
@pytest.mark.parametrize("form", ["contig", "separate"])
@pytest.mark.parametrize("extra", ["unspecified", "assocalpha", "unassalpha"])
def test_an_extra_sample_is_alpha_only_where_it_is_said_to_be(image, form, extra):
    full = np.iinfo(image.dtype).max
    for alpha in (0, full // 3, full):
        colour = image.reshape(37, 50, -1)
        if extra == "assocalpha":
            colour = (colour.astype(np.uint32) * alpha // full).astype(image.dtype)
        samples = np.dstack([colour, np.full(image.shape[:2], alpha, image.dtype)])
        stored = samples if form == "contig" else np.moveaxis(samples, 2, 0)
        photometric = "rgb" if image.ndim == 3 else "minisblack"
        picture = read(tiff(stored, planarconfig=form, photometric=photometric, extrasamples=[extra]))
        expected = to_8_bits(colour).astype(int)
        if extra == "unassalpha":
            expected = (expected * int(to_8_bits(np.full(1, alpha, image.dtype))[0]) + 127) // 255
        np.testing.assert_array_equal(picture.pixels, expected.reshape(image.shape))
        is_seen = extra == "unspecified" or alpha > 0
        assert (why_nothing_shows(picture) is None) == is_seen


def test_samples_that_no_tag_explains_are_not_alpha():
    samples = np.dstack([RGB, np.zeros_like(GREY)])
    data = raw_tiff(50, 37, samples.tobytes(), {258: (3, [8] * 4), 262: (3, [2]), 277: (3, [4])})
    np.testing.assert_array_equal(read(data).pixels, RGB)


@pytest.mark.parametrize("bits", [1, 2, 4, 8])
@pytest.mark.parametrize("shift", [0, 8])
def test_a_palette_of_8_or_16_bits_is_looked_up(bits, shift):
    palette = RNG.integers(0, 256, (3, 1 << bits))
    palette[0, 0] = 255
    values = np.arange(32).reshape(4, 8) % (1 << bits)
    pixels = np.packbits((values[..., None] >> np.arange(bits)[::-1] & 1).reshape(4, -1), axis=1).tobytes()
    colour_map = (palette << shift).ravel().tolist()
    data = raw_tiff(8, 4, pixels, {258: (3, [bits]), 262: (3, [3]), 320: (3, colour_map)})
    np.testing.assert_array_equal(read(data).pixels, palette.T[values])


@pytest.mark.parametrize("image", [GREY, RGB], ids=["grey", "rgb"])
@pytest.mark.parametrize("layout", [{}, {"rowsperstrip": 8}, {"tile": (16, 16)}], ids=str)
def test_jpeg_inside_a_tiff_is_read_and_its_damage_noticed(image, layout):
    data = tiff(image, compression="jpeg", compressionargs={"level": 95}, **layout)
    with tifffile.TiffFile(io.BytesIO(data)) as file:
        seen = file.pages.first.asarray()
        start, length = file.pages.first.dataoffsets[-1], file.pages.first.databytecounts[-1]
    np.testing.assert_array_equal(read(data).pixels, seen)
    cut = data[: start + length // 2] + b"\xff\xd9" + bytes(length - length // 2 - 2) + data[start + length :]
    with pytest.raises(UnsupportedImageError, match="truncated or damaged"):
        read(cut)


def test_the_first_image_counts():
    file = io.BytesIO()
    with tifffile.TiffWriter(file) as writer:
        writer.write(GREY, photometric="minisblack", metadata=None)
        writer.write(255 - GREY[:20], photometric="minisblack", metadata=None)
    np.testing.assert_array_equal(read(file.getvalue()).pixels, GREY)


@pytest.mark.parametrize(
    ("data", "says"),
    [
        (raw_tiff(8, 5, bytes(40), {259: (3, [34925])}), "LZMA compression; none, LZW, Deflate"),
        (raw_tiff(8, 5, bytes(40), {259: (3, [4])}), "CCITT Group 4"),
        (raw_tiff(8, 5, bytes(40), {259: (3, [6])}), "old-style JPEG"),
        (raw_tiff(8, 5, bytes(40), {259: (3, [50001])}), "WebP"),
        (raw_tiff(8, 5, bytes(40), {259: (3, [12345])}), "number 12345"),
        (raw_tiff(8, 5, bytes(160), {258: (3, [32])}), "32 bits a sample; 1, 2, 4 and 8 to 16"),
        (raw_tiff(8, 5, bytes(160), {258: (3, [32]), 339: (3, [3])}), "floating point"),
        (raw_tiff(8, 5, bytes(40), {339: (3, [2])}), "signed integers"),
        (raw_tiff(8, 5, bytes(80), {258: (3, [5, 6, 5]), 262: (3, [2]), 277: (3, [3])}), "5, 6 bits; equal bits"),
        (raw_tiff(8, 5, bytes(40), {262: (3, [5])}), "CMYK"),
        (raw_tiff(8, 5, bytes(40), {262: (3, [6])}), "YCbCr"),
        (raw_tiff(8, 5, bytes(40), {262: (3, [32803])}), "Bayer"),
        (raw_tiff(8, 5, bytes(40), {262: (3, [2])}), "1 samples a pixel; 3 to"),
        (raw_tiff(8, 5, bytes(40), {277: (3, [300])}), "300 samples a pixel"),
        (raw_tiff(8, 5, bytes(40), {317: (3, [3])}), "predictor 3"),
        (raw_tiff(8, 5, bytes(40), {284: (3, [7]), 277: (3, [2])}), "planar configuration 7"),
        (raw_tiff(8, 5, bytes(40), {32997: (3, [4])}), "depth"),
        (raw_tiff(8, 5, bytes(40), {262: (3, [3])}), "palette of 0 values; 768"),
        (raw_tiff(8, 0, bytes(40)), "8 × 0 pixels"),
        (raw_tiff(8, 5, bytes(40), {278: (4, [0])}), "strips or tiles of 8 × 0"),
        (raw_tiff(8, 5, bytes(40), {279: (4, [4000])}), "outside the"),
        (raw_tiff(8, 5, bytes(40), {279: (4, [39])}), "39 bytes of 40"),
        (raw_tiff(8, 5, bytes(40), {278: (4, [2])}), "1 of 3 strips"),
        (raw_tiff(8, 5, bytes(40), {278: (4, [2]), 273: (4, [8, 8, 0]), 279: (4, [16, 16, 8])}), "outside the"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_what_is_not_served_is_named(data, says):
    with pytest.raises(UnsupportedImageError, match=says):
        read(data)


def bomb(width, height, tile, n):
    """A TIFF whose n tiles are all the same few bytes."""
    deflated = imagecodecs.zlib_encode(bytes(1000))
    tags = {259: (3, [8]), 322: (4, [tile[0]]), 323: (4, [tile[1]]), 324: (4, [8] * n), 325: (4, [len(deflated)] * n)}
    return raw_tiff(width, height, deflated, tags)


@pytest.mark.parametrize(
    ("data", "says"),
    [
        (bomb(100, 100, (5000, 5000), 1), "tiles of 5000 × 5000"),
        (bomb(1, 65_000, (1000, 1), 65_000), "65000000 together"),
        (bomb(400, 400, (1, 1), 160_000), "160000 strips or tiles|values"),
        (raw_tiff(5000, 5000, bytes(10)), "25000000 pixels|5000 × 5000 pixels"),
        (raw_tiff(900, 900, bytes(10), {258: (3, [16] * 16), 277: (3, [16])}), "bytes of samples"),
        (raw_tiff(8, 5, bytes(40), {330: (4, [0] * 250_000)}), "values"),
        (raw_tiff(8, 5, bytes(40), {code: (3, [1]) for code in range(40_000, 45_000)}), "more than 1000 tags"),
    ],
    ids=["one tile", "tiles beyond the image", "tiny tiles", "pixels", "samples", "values of a tag", "tags"],
)
def test_a_file_that_costs_more_than_its_pixels_is_refused_before_it_is_decoded(data, says):
    with pytest.raises(TooLargeError, match=says):
        read_header(data, "roi.tif", Limits(max_bytes=2**23, max_pixels=1_000_000))


def test_a_strip_that_inflates_beyond_its_pixels_takes_no_more_room():
    deflated = imagecodecs.zlib_encode(bytes(50_000_000))
    with pytest.raises(UnsupportedImageError, match="truncated or damaged: strip or tile 0"):
        read(raw_tiff(8, 5, deflated, {259: (3, [8])}))


def test_damaged_files_are_refused_or_give_the_same_pixels_each_time():
    """Nothing of other memory shows: whatever a damaged file gives, it gives again."""
    rng = np.random.default_rng(3)
    kinds = [tiff(RGB16), planar(RGB16, compression="lzw"), tiff(GREY, tile=(16, 16), compression="zlib")]
    kinds += [tiff(GREY16, rowsperstrip=4, byteorder=">"), tiff(RGB, compression="jpeg"), tiff(GREY > 127)]
    n_read = 0
    for data in kinds:
        for _ in range(60):
            damaged = np.frombuffer(data, np.uint8).copy()
            where = rng.integers(0, len(data) if rng.random() < 0.3 else min(len(data), 400), 3)
            damaged[where] = rng.integers(0, 256, 3)
            digests = set()
            for junk in (0x55, 0xAA):
                _ = [np.full(size, junk, np.uint8) for size in (4000, 20_000, 60_000)]
                try:
                    digests.add(pixel_digest(read(damaged.tobytes()).pixels))
                except (UnsupportedImageError, TooLargeError) as error:
                    digests.add(error.message)
            assert len(digests) == 1
            n_read += len(next(iter(digests))) == 64
    assert n_read > 20


@pytest.mark.skipif(not CASES.is_dir(), reason="../shared/cases is not there")
def test_the_cases_come_to_their_right_values():
    def pixels(name):
        return read((CASES / name).read_bytes()).pixels

    grey = pixels("grey16_deflate.tif")
    for name in ("miniswhite16.tif", "grey16_zstd.tif", "big_grey16_be.tif"):
        np.testing.assert_array_equal(pixels(name), grey)
    np.testing.assert_array_equal(pixels("planar16_rgb.tif"), pixels("contig16_rgb.tif"))
    for name in ("rgbx8_x0.tif", "rgba8_opaque_as_WPF.tif"):
        assert pixel_digest(pixels(name)) == pixel_digest(pixels("base.png"))
