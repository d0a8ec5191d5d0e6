"""BMP files of 16, 24 and 32 bits a pixel, read by their own masks. OpenCV reads the others.

Source: Microsoft, "Bitmap Storage" and BITMAPV5HEADER, Windows GDI documentation.
"""

import struct
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from gateway.errors import UnsupportedImageError
from gateway.images.picture import Stored

_CORE_HEADER, _INFO_HEADER, _MASKS_HEADER, _ALPHA_HEADER = 12, 40, 52, 56  # sizes of headers, in bytes
_UNCOMPRESSED, _RLE8, _RLE4, _BITFIELDS, _ALPHA_BITFIELDS = 0, 1, 2, 3, 6
_PALETTE_BITS = (1, 4, 8)
_MASKS_555 = (0x7C00, 0x03E0, 0x001F, 0)
_MASKS_888 = (0xFF0000, 0x00FF00, 0x0000FF, 0)


@dataclass(frozen=True, slots=True)
class BmpLayout:
    """What the headers of a BMP file say."""

    width: int
    height: int
    is_top_down: bool
    bits: int
    """Bits a pixel."""
    masks: tuple[int, int, int, int]
    """Of red, green, blue and alpha in a pixel of 16 to 32 bits; an alpha mask of 0 is an opaque image."""
    offset: int
    """Where the pixels begin in the file."""

    @property
    def has_palette(self) -> bool:
        """Whether pixels are indices of a palette."""
        return self.bits in _PALETTE_BITS


def read_layout(data: bytes, name: str) -> BmpLayout:
    """Read the headers of a BMP file.

    Args:
        data: a file that begins as a BMP does.
        name: name of the file, for the error.

    Raises:
        UnsupportedImageError: a header is damaged, or the compression, the bits a pixel or the masks are not served.
    """
    try:
        offset, header = struct.unpack_from("<II", data, 10)
        if header == _CORE_HEADER:
            width, height, _, bits = struct.unpack_from("<HHHH", data, 18)
            compression = _UNCOMPRESSED
        elif header >= _INFO_HEADER:
            width, height, _, bits, compression = struct.unpack_from("<iiHHI", data, 18)
        else:
            raise UnsupportedImageError(f"{name}: a BMP with a header of {header} bytes, which is not served")
        masks = _masks(data, header, bits, compression)
    except struct.error as error:
        raise UnsupportedImageError(f"{name}: its header is truncated") from error
    if bits not in (*_PALETTE_BITS, 16, 24, 32):
        raise UnsupportedImageError(f"{name}: a BMP of {bits} bits a pixel; 1, 4, 8, 16, 24 and 32 bits are served")
    served = {8: (_UNCOMPRESSED, _RLE8), 4: (_UNCOMPRESSED, _RLE4), 1: (_UNCOMPRESSED,), 24: (_UNCOMPRESSED,)}
    if compression not in served.get(bits, (_UNCOMPRESSED, _BITFIELDS, _ALPHA_BITFIELDS)):
        raise UnsupportedImageError(f"{name}: a BMP of {bits} bits a pixel with compression {compression}, not served")
    used = masks if masks[3] else masks[:3]
    if bits >= 16 and not all(_is_run(mask) and mask >> bits == 0 for mask in used):
        shown = ", ".join(f"{mask:#x}" for mask in masks)
        raise UnsupportedImageError(f"{name}: a BMP with the colour masks {shown}, which are not served")
    if width < 1 or height == 0:
        raise UnsupportedImageError(f"{name}: {width} × {height} pixels")
    return BmpLayout(width, abs(height), height < 0, bits, masks, offset)


def _masks(data: bytes, header: int, bits: int, compression: int) -> tuple[int, int, int, int]:
    if compression not in (_BITFIELDS, _ALPHA_BITFIELDS):
        return _MASKS_555 if bits == 16 else _MASKS_888
    # The masks follow a header of 40 bytes; in longer headers they stand at the same place.
    red, green, blue = struct.unpack_from("<III", data, 14 + _INFO_HEADER)
    has_alpha = header >= _ALPHA_HEADER or (header < _MASKS_HEADER and compression == _ALPHA_BITFIELDS)
    alpha = struct.unpack_from("<I", data, 14 + _MASKS_HEADER)[0] if has_alpha else 0
    return red, green, blue, alpha


def _is_run(mask: int) -> bool:
    """Return whether a mask is one run of 1 to 16 bits."""
    run = mask >> _shift(mask) if mask else 0
    return 0 < run < 1 << 16 and run & (run + 1) == 0


def _shift(mask: int) -> int:
    return (mask & -mask).bit_length() - 1


def decode_bmp(data: bytes, name: str, layout: BmpLayout) -> Stored:
    """Decode a BMP file without a palette.

    Args:
        data: the file.
        name: name of the file, for the error.
        layout: from `read_layout` of the same bytes, without a palette.

    Returns:
        8 bits RGB, and alpha where the file has an alpha mask. Channels of other widths are scaled to 8 bits.

    Raises:
        UnsupportedImageError: the file is shorter than its pixels.
    """
    width, height, n_bytes = layout.width, layout.height, layout.bits // 8
    row = -(-width * n_bytes // 4) * 4  # rows are padded to 4 bytes
    needed = row * (height - 1) + width * n_bytes
    pixels = np.frombuffer(data, np.uint8)[layout.offset : layout.offset + row * height]
    if len(pixels) < needed:
        raise UnsupportedImageError(
            f"{name}: truncated or damaged: {len(pixels)} bytes of pixels, but {width} × {height} need {needed}"
        )
    if len(pixels) < row * height:  # the last row may lack its padding
        pixels = np.concatenate([pixels, np.zeros(row * height - len(pixels), np.uint8)])
    rows = pixels.reshape(height, row)[:, : width * n_bytes]
    if not layout.is_top_down:
        rows = rows[::-1]
    if layout.bits == 24:
        bgr = np.ascontiguousarray(rows).reshape(height, width, 3)
        return Stored(np.asarray(cv2.cvtColor(bgr, cv2.COLOR_BGR2RGB), np.uint8), 8)
    words = np.ascontiguousarray(rows).view("<u4" if layout.bits == 32 else "<u2")
    red, green, blue, alpha = layout.masks
    colour = cv2.merge([_channel(words, mask) for mask in (red, green, blue)])
    return Stored(np.asarray(colour, np.uint8), 8, _channel(words, alpha) if alpha else None)


def _channel(words: NDArray[np.unsignedinteger], mask: int) -> NDArray[np.uint8]:
    """Return the bits of a mask, scaled to 8 bits."""
    largest = mask >> _shift(mask)
    if largest == 255 and _shift(mask) % 8 == 0:  # a byte
        return np.asarray(
            cv2.extractChannel(words.view(np.uint8).reshape(*words.shape, -1), _shift(mask) // 8), np.uint8
        )
    values = (words >> _shift(mask)) & largest
    scaled = (values.astype(np.uint32) * 255 + largest // 2) // largest
    return scaled.astype(np.uint8)
