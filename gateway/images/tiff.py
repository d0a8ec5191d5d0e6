"""TIFF files, read by their own tags: tifffile reads the tags, imagecodecs decompresses the strips or tiles.

A strip or tile that does not give all its samples is damage; nothing of the image is left undefined. Both libraries are
imported with the first TIFF file.

Source: Adobe, "TIFF Revision 6.0" (1992) and its Technical Notes; the tag numbers are those of that document.
"""

import io
import logging
import struct
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import simplejpeg
from numpy.typing import NDArray

from gateway.errors import GatewayError, TooLargeError, UnsupportedImageError
from gateway.images.picture import Stored, StoredSamples

if TYPE_CHECKING:
    from tifffile import TiffTags

_WHITE_IS_ZERO, _BLACK_IS_ZERO, _RGB, _PALETTE, _YCBCR = 0, 1, 2, 3, 6
_PHOTOMETRIC = {4: "transparency mask", 5: "CMYK", 6: "YCbCr", 8: "CIE L*a*b*", 9: "ICC L*a*b*", 10: "ITU L*a*b*"}
_PHOTOMETRIC |= {32803: "raw colour filter array (Bayer)", 34892: "linear raw"}
_COLOURS = {_WHITE_IS_ZERO: 1, _BLACK_IS_ZERO: 1, _RGB: 3, _PALETTE: 1, _YCBCR: 3}
"""Colour samples a pixel."""
_UNCOMPRESSED, _JPEG = 1, 7
_CODECS = {5: "lzw_decode", 8: "zlib_decode", 32946: "zlib_decode", 32773: "packbits_decode", 50000: "zstd_decode"}
"""Decompressors of imagecodecs, each of which stops at the size of its output."""
_COMPRESSION = {2: "CCITT modified Huffman", 3: "CCITT Group 3", 4: "CCITT Group 4", 6: "old-style JPEG"}
_COMPRESSION |= {34712: "JPEG 2000", 34892: "lossy JPEG", 34925: "LZMA", 50001: "WebP", 50002: "JPEG XL", 34887: "LERC"}
_SERVED_COMPRESSION = "none, LZW, Deflate, PackBits, Zstandard and JPEG are served"
_ASSOCIATED, _UNASSOCIATED = 1, 2
"""Meanings of an extra sample: alpha that the colour is multiplied by already, and alpha that it is not."""
_MAX_SAMPLES = 16
_MAX_BYTES_A_PIXEL = 8
_MAX_SEGMENTS = 100_000


@dataclass(frozen=True, slots=True, eq=False)
class TiffLayout:
    """What the tags of a TIFF file say."""

    width: int
    height: int
    orientation: int
    """1 to 8, as in EXIF."""
    bits: int
    """Bits a sample, 1 to 16."""
    n_samples: int
    """Samples a pixel, alpha and others included."""
    photometric: int
    is_planar: bool
    """Whether each sample has a plane of its own."""
    alpha: int | None
    """Which sample is alpha."""
    is_premultiplied: bool
    compression: int
    has_predictor: bool
    """Whether samples are stored as differences along a row."""
    has_reversed_bits: bool
    byte_order: str
    """`<` or `>`."""
    segment_wh: tuple[int, int]
    """Width and height of a strip or a tile."""
    segments: tuple[tuple[int, int], ...]
    """Offset and number of bytes of each strip or tile, plane by plane, row by row."""
    colour_map: NDArray[np.uint8] | None
    """[2^bits, 3] RGB."""
    jpeg_tables: bytes
    """Tables that the JPEG streams of all segments share."""


def read_layout(data: bytes, name: str) -> TiffLayout:
    """Read the tags of the first image of a TIFF file.

    Args:
        data: a file that begins as a TIFF does.
        name: name of the file, for the error.

    Raises:
        UnsupportedImageError: the tags are damaged, or the image is of a kind that is not served; the error names it.
    """
    import tifffile

    logging.getLogger("tifffile").setLevel(logging.CRITICAL)  # what it warns of is an error here
    try:
        with tifffile.TiffFile(io.BytesIO(data), is_lsm=False, is_scanimage=False, is_ndpi=False) as file:
            return _Reader(file.pages.first.tags, name, file.byteorder, len(data)).layout()
    except GatewayError:
        raise
    except Exception as error:  # damaged bytes may raise anything in a parser
        raise UnsupportedImageError(f"{name}: its TIFF tags are damaged ({type(error).__name__})") from error


class _Reader:
    """Reads and checks the tags of one image."""

    def __init__(self, tags: "TiffTags", name: str, byte_order: str, n_bytes: int) -> None:
        self._tags = tags
        self._name = name
        self._byte_order = byte_order
        self._n_bytes = n_bytes

    def layout(self) -> TiffLayout:
        width, height = self._number(256), self._number(257)
        if not (width > 0 and height > 0):
            raise self._refused(f"{width} × {height} pixels")
        if self._number(32997, 1) != 1:
            raise self._refused("a TIFF with a depth; flat images are served")
        n_samples = self._number(277, 1)
        compression = self._compression()
        photometric = self._photometric(compression)
        n_colours = _COLOURS[photometric]
        if not n_colours <= n_samples <= _MAX_SAMPLES:
            raise self._refused(f"a TIFF of {n_samples} samples a pixel; {n_colours} to {_MAX_SAMPLES} are served")
        bits = self._bits(compression)
        alpha, is_premultiplied = self._alpha(n_colours, n_samples)
        predictor = self._number(317, 1)
        if predictor not in (1, 2) or (predictor == 2 and bits not in (8, 16)):
            raise self._refused(f"a TIFF with predictor {predictor} for {bits} bits a sample, which is not served")
        planar = self._number(284, 1)
        if planar not in (1, 2):
            raise self._refused(f"a TIFF with planar configuration {planar}, which is not served")
        is_planar = planar == 2 and n_samples > 1
        segment_wh, segments = self._segments(width, height, n_samples if is_planar else 1)
        orientation = self._number(274, 1)
        tables = self._tags.valueof(347, b"") if compression == _JPEG else b""
        return TiffLayout(
            width=width,
            height=height,
            orientation=orientation if orientation in range(1, 9) else 1,
            bits=bits,
            n_samples=n_samples,
            photometric=photometric,
            is_planar=is_planar,
            alpha=alpha,
            is_premultiplied=is_premultiplied,
            compression=compression,
            has_predictor=predictor == 2 and compression != _JPEG,
            has_reversed_bits=self._number(266, 1) == 2,
            byte_order=self._byte_order,
            segment_wh=segment_wh,
            segments=segments,
            colour_map=self._colour_map(bits) if photometric == _PALETTE else None,
            jpeg_tables=bytes(tables or b""),
        )

    def _compression(self) -> int:
        compression = self._number(259, 1)
        if compression not in (_UNCOMPRESSED, _JPEG, *_CODECS):
            shown = _COMPRESSION.get(compression, f"number {compression}")
            raise self._refused(f"a TIFF with {shown} compression; {_SERVED_COMPRESSION}")
        return compression

    def _photometric(self, compression: int) -> int:
        photometric = self._number(262, -1)
        if photometric == -1:
            raise self._refused("a TIFF without PhotometricInterpretation, so that its samples have no meaning")
        if photometric not in _COLOURS or (photometric == _YCBCR and compression != _JPEG):
            shown = _PHOTOMETRIC.get(photometric, f"number {photometric}")
            raise self._refused(f"a TIFF whose samples are {shown}; grey, palette and RGB are served")
        return photometric

    def _bits(self, compression: int) -> int:
        bits = set(self._numbers(258, (1,)))
        formats = set(self._numbers(339, (1,)))
        if formats - {1, 4}:
            kinds = {2: "signed integers", 3: "floating point numbers", 5: "complex", 6: "complex"}
            shown = kinds.get(min(formats - {1, 4}), "of an unknown format")
            raise self._refused(f"a TIFF whose samples are {shown}; unsigned integers are served")
        if len(bits) != 1:
            raise self._refused(f"a TIFF of {', '.join(map(str, sorted(bits)))} bits; equal bits a sample are served")
        (number,) = bits
        if number not in (1, 2, 4, *range(8, 17)) or (compression == _JPEG and number != 8):
            of_jpeg = " with JPEG compression" if compression == _JPEG else ""
            raise self._refused(f"a TIFF of {number} bits a sample{of_jpeg}; 1, 2, 4 and 8 to 16 bits are served")
        return number

    def _alpha(self, n_colours: int, n_samples: int) -> tuple[int | None, bool]:
        meanings = self._numbers(338, ())[: n_samples - n_colours]
        for at, meaning in enumerate(meanings, n_colours):
            if meaning in (_ASSOCIATED, _UNASSOCIATED):
                return at, meaning == _ASSOCIATED
        return None, False

    def _segments(self, width: int, height: int, planes: int) -> tuple[tuple[int, int], tuple[tuple[int, int], ...]]:
        is_tiled = 322 in self._tags or 324 in self._tags
        size = (self._number(322), self._number(323)) if is_tiled else (width, min(self._number(278, height), height))
        if min(size) < 1:
            raise self._refused(f"damaged: strips or tiles of {size[0]} × {size[1]} pixels")
        needed = -(-width // size[0]) * -(-height // size[1]) * planes
        offsets = self._numbers(324 if is_tiled else 273, ())
        counts = self._numbers(325 if is_tiled else 279, ())
        if needed > _MAX_SEGMENTS:
            raise TooLargeError(f"{self._name}: {needed} strips or tiles; at most {_MAX_SEGMENTS} are served")
        if len(offsets) < needed or len(counts) < needed:
            raise self._refused(f"truncated or damaged: {min(len(offsets), len(counts))} of {needed} strips or tiles")
        segments = tuple(zip(offsets[:needed], counts[:needed], strict=True))
        for offset, count in segments:
            if not (offset > 0 and count > 0 and offset + count <= self._n_bytes):
                raise self._refused(f"truncated or damaged: a strip or tile lies outside the {self._n_bytes} bytes")
        return size, segments

    def _colour_map(self, bits: int) -> NDArray[np.uint8]:
        if bits > 8:
            raise self._refused(f"a TIFF with a palette of {bits} bits; palettes of at most 8 bits are served")
        values = np.asarray(self._tags.valueof(320, ()), np.uint16).reshape(-1)
        if values.size != 3 << bits:
            raise self._refused(f"damaged: a palette of {values.size} values; {3 << bits} are needed")
        # 16 bits each; some programs write 8.
        scaled = values if values.max() < 256 else values >> 8
        return np.ascontiguousarray(scaled.reshape(3, -1).T, np.uint8)

    def _number(self, code: int, default: int = 0) -> int:
        return (*self._numbers(code, (default,)), default)[0]

    def _numbers(self, code: int, default: tuple[int, ...]) -> tuple[int, ...]:
        value = self._tags.valueof(code, None)
        if value is None:
            return default
        return tuple(int(v) for v in (value if isinstance(value, tuple | list | np.ndarray) else (value,)))

    def _refused(self, why: str) -> UnsupportedImageError:
        return UnsupportedImageError(f"{self._name}: {why}")


def require_affordable(layout: TiffLayout, name: str, max_pixels: int) -> None:
    """Refuse an image whose strips or tiles cost more than its pixels may.

    Raises:
        TooLargeError: they decode to far more pixels than the image has, or it has too many samples a pixel.
    """
    width, height = layout.segment_wh
    planes = layout.n_samples if layout.is_planar else 1
    pixels = len(layout.segments) // planes * width * height
    if width * height > max_pixels or pixels > 2 * max_pixels:
        raise TooLargeError(
            f"{name}: strips or tiles of {width} × {height} pixels, {pixels} together; "
            f"at most {max_pixels} each and {2 * max_pixels} together are served"
        )
    n_bytes = layout.width * layout.height * layout.n_samples * (2 if layout.bits > 8 else 1)
    if n_bytes > _MAX_BYTES_A_PIXEL * max_pixels:
        raise TooLargeError(f"{name}: {n_bytes} bytes of samples; at most {_MAX_BYTES_A_PIXEL * max_pixels} are served")


def decode_tiff(data: bytes, name: str, layout: TiffLayout) -> Stored:
    """Decode the first image of a TIFF file.

    Args:
        data: the file.
        name: name of the file, for the error.
        layout: from `read_layout` of the same bytes.

    Returns:
        Grey or RGB, and alpha where an extra sample says that it is alpha. Samples of 1 to 4 bits are scaled to 8.

    Raises:
        UnsupportedImageError: a strip or tile is truncated or damaged.
    """
    n_colours = 1 if layout.photometric in (_WHITE_IS_ZERO, _BLACK_IS_ZERO, _PALETTE) else 3
    needed = [*range(n_colours), *([] if layout.alpha is None else [layout.alpha])]
    are_first = needed == [*range(len(needed))]
    dtype = np.uint16 if layout.bits > 8 else np.uint8
    planes = np.zeros((layout.height, layout.width, len(needed)), dtype)
    for (rows, columns), sample, block in _blocks(data, name, layout):
        if sample is None:
            planes[rows, columns] = block[..., : len(needed)] if are_first else block[..., needed]
        elif sample in needed:
            planes[rows, columns, needed.index(sample)] = block[..., 0]
    colour = planes[..., 0] if n_colours == 1 else planes[..., :n_colours]
    alpha = None if layout.alpha is None else _at_least_8_bits(planes[..., -1], layout.bits)
    if layout.colour_map is not None:
        return Stored(np.asarray(layout.colour_map[colour], np.uint8), 8, alpha, layout.is_premultiplied)
    if layout.photometric == _WHITE_IS_ZERO:
        colour = ((1 << layout.bits) - 1) - colour
    return Stored(_at_least_8_bits(colour, layout.bits), max(layout.bits, 8), alpha, layout.is_premultiplied)


def _at_least_8_bits(samples: NDArray[Any], bits: int) -> StoredSamples:
    """Scale samples of 1 to 4 bits to 8 bits; others stay."""
    if bits > 8:
        return np.ascontiguousarray(samples, np.uint16)
    return np.ascontiguousarray(samples if bits == 8 else samples * (255 // ((1 << bits) - 1)), np.uint8)


_Place = tuple[slice, slice]


def _blocks(data: bytes, name: str, layout: TiffLayout) -> Iterator[tuple[_Place, int | None, StoredSamples]]:
    """Yield for each strip or tile its place in the image, its sample in a planar image, and its samples.

    The samples are uint8 or uint16 [h, w, samples], cut to the image.
    """
    width, height = layout.segment_wh
    across, down = -(-layout.width // width), -(-layout.height // height)
    decode = _jpeg_block if layout.compression == _JPEG else _plain_block
    samples = 1 if layout.is_planar else layout.n_samples
    for i, (offset, count) in enumerate(layout.segments):
        plane, at = divmod(i, across * down)
        top, left = at // across * height, at % across * width
        rows, columns = min(height, layout.height - top), min(width, layout.width - left)
        try:
            block = decode(data[offset : offset + count], layout, rows, samples)
        except (ValueError, RuntimeError, struct.error) as error:
            raise UnsupportedImageError(f"{name}: truncated or damaged: strip or tile {i} ({error})") from error
        place = slice(top, top + rows), slice(left, left + columns)
        yield place, plane if layout.is_planar else None, block[:rows, :columns]


def _plain_block(data: bytes, layout: TiffLayout, rows: int, samples: int) -> StoredSamples:
    """Decode a strip or tile of raw samples: at least `rows` rows, as wide as the strip or tile."""
    width, height = layout.segment_wh
    row = -(-width * samples * layout.bits // 8)
    if layout.has_reversed_bits:
        data = _codec("bitorder_decode")(data)
    if layout.compression == _UNCOMPRESSED:
        packed = np.frombuffer(data, np.uint8)[: row * height]
    else:
        out = np.zeros(row * height, np.uint8)
        packed = np.frombuffer(_codec(_CODECS[layout.compression])(data, out=out), np.uint8)
    if len(packed) < row * rows:
        raise ValueError(f"{len(packed)} bytes of {row * rows}")
    packed = packed[: row * rows]  # the last strip may be padded to a whole one
    shape = rows, width, samples
    if layout.bits == 8:
        block: NDArray[Any] = packed.reshape(shape)
    elif layout.bits == 16:
        block = packed.view(f"{layout.byte_order}u2").astype(np.uint16).reshape(shape)
    else:
        dtype = np.uint16 if layout.bits > 8 else np.uint8
        unpacked = _codec("packints_decode")(packed.tobytes(), dtype, layout.bits, runlen=width * samples)
        block = np.asarray(unpacked, dtype).reshape(shape)
    return np.cumsum(block, axis=1, dtype=block.dtype) if layout.has_predictor else block


def _codec(name: str) -> Callable[..., Any]:
    import imagecodecs

    function: Callable[..., Any] = getattr(imagecodecs, name)
    return function


def _jpeg_block(data: bytes, layout: TiffLayout, rows: int, samples: int) -> StoredSamples:
    """Decode a strip or tile of JPEG, which shares its tables with the others."""
    if data[:2] != b"\xff\xd8" or samples not in (1, 3):
        raise ValueError("not a JPEG stream of 1 or 3 samples")
    # Adobe's marker says whether three components are RGB (0) or YCbCr (1); a TIFF's stream has none.
    transform = 1 if layout.photometric == _YCBCR else 0
    adobe = b"\xff\xee\x00\x0eAdobe\x00\x64\x00\x00\x00\x00" + bytes([transform])
    tables = layout.jpeg_tables.removeprefix(b"\xff\xd8").removesuffix(b"\xff\xd9")
    stream = b"\xff\xd8" + (adobe if samples == 3 else b"") + tables + data[2:]
    width, height = layout.segment_wh
    found_height, found_width, space, _ = simplejpeg.decode_jpeg_header(stream)
    if found_width != width or not rows <= found_height <= height or (space == "Gray") != (samples == 1):
        raise ValueError(f"a JPEG of {found_width} × {found_height} pixels, {space}")
    return np.asarray(simplejpeg.decode_jpeg(stream, "GRAY" if samples == 1 else "RGB"), np.uint8)
