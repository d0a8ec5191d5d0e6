"""JPEG files, decoded by a decoder that is strict about warnings.

libjpeg goes on after damage in the compressed data and only warns. An image with such damage must not be learned or
judged, so that every warning counts as an error here.
"""

import numpy as np
import simplejpeg

from gateway.errors import UnsupportedImageError
from gateway.images.picture import Stored

_STANDALONE = {0x01, *range(0xD0, 0xD9)}
"""Markers without a length."""
_FRAMES = {*range(0xC0, 0xD0)} - {0xC4, 0xC8, 0xCC}
"""Markers of a frame header, SOF0 to SOF15 (ITU-T T.81, table B.1)."""
_BITS = 8
_SPACES = {"Gray": "GRAY", "CMYK": "CMYK", "YCCK": "CMYK"}
"""simplejpeg's names of what is decoded as something else than RGB."""


def require_8_bits(data: bytes, name: str) -> None:
    """Refuse a JPEG file of more than 8 bits a sample.

    Args:
        data: a file that begins as a JPEG does.
        name: name of the file, for the error.

    Raises:
        UnsupportedImageError: the frame header says another precision than 8 bits.
    """
    precision = _precision(data)
    if precision is not None and precision != _BITS:
        raise UnsupportedImageError(
            f"{name}: a JPEG of {precision} bits a sample; JPEG files of 8 bits are served",
            "Write the image as a PNG or TIFF file of 16 bits.",
        )


def _precision(data: bytes) -> int | None:
    """Return the bits a sample of the first frame, or None where there is no frame header."""
    at = 2
    while at + 4 < len(data) and data[at] == 0xFF:
        marker = data[at + 1]
        if marker in _FRAMES:
            return data[at + 4]
        if marker == 0xFF:
            at += 1
        elif marker in _STANDALONE:
            at += 2
        else:
            at += 2 + int.from_bytes(data[at + 2 : at + 4])
    return None


def decode_jpeg(data: bytes, name: str, size_wh: tuple[int, int]) -> Stored:
    """Decode a JPEG file.

    Args:
        data: the file.
        name: name of the file, for the error.
        size_wh: width and height that were held to the limits.

    Returns:
        Grey for a grey file, RGB for any other. CMYK is converted to RGB as Adobe's files need it.

    Raises:
        UnsupportedImageError: truncated, damaged, or of a kind that libjpeg-turbo does not decode.
    """
    try:
        height, width, space, _ = simplejpeg.decode_jpeg_header(data)
        if (width, height) != size_wh:
            said = f"{size_wh[0]} × {size_wh[1]}"
            raise UnsupportedImageError(f"{name}: damaged: one header says {said} pixels, another {width} × {height}")
        pixels = np.asarray(simplejpeg.decode_jpeg(data, _SPACES.get(space, "RGB")), np.uint8)
    except ValueError as error:
        raise UnsupportedImageError(f"{name}: truncated or damaged, or not served ({error})") from error
    if pixels.shape[2] == 1:
        return Stored(pixels[..., 0], _BITS)
    if pixels.shape[2] == 4:
        ink = pixels.astype(np.uint16)
        pixels = ((ink[..., :3] * ink[..., 3:] + 127) // 255).astype(np.uint8)
    return Stored(pixels, _BITS)
