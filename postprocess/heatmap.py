"""Heatmaps: the anomaly map as a grey PNG for clients and as a colour overlay for people."""

import math
import struct
import zlib
from collections.abc import Iterable

import cv2
import imagecodecs
import numpy as np
from numpy.typing import NDArray

_SIGNATURE = b"\x89PNG\r\n\x1a\n"
_UP = 2
"""PNG's filter that stores the difference from the row above."""


def encode_heatmap(
    anomaly_map: NDArray[np.float32], heatmap_max: float, mask: NDArray[np.bool_] | None = None
) -> bytes:
    """Encode an anomaly map as an 8-bit grey PNG: 0 for distance 0 or outside the mask, 255 for `heatmap_max` or more.

    Args:
        anomaly_map: float32 `[H, W]`, blurred.
        heatmap_max: the distance that 255 stands for, above 0.
        mask: bool `[H, W]`; pixels outside are 0.

    Returns:
        The bytes of the PNG.

    Raises:
        ValueError: `heatmap_max` is not finite and above 0, the map holds NaN, or the mask has another shape.
    """
    if not 0 < heatmap_max < math.inf:
        raise ValueError(f"heatmap_max is {heatmap_max}; expected a finite number above 0")
    if mask is not None and mask.shape != anomaly_map.shape:
        raise ValueError(f"mask has shape {mask.shape}; the anomaly map is {anomaly_map.shape}")
    if math.isnan(anomaly_map.max()):
        raise ValueError("the anomaly map holds NaN; it cannot be drawn")
    # In place: new arrays would cost more time than the arithmetic.
    levels = np.clip(anomaly_map, 0, heatmap_max)
    levels /= heatmap_max
    levels *= 255
    grey = np.rint(levels, out=levels).astype(np.uint8)
    if mask is not None:
        grey *= mask
    return grey_png(grey)


def grey_png(grey: NDArray[np.uint8]) -> bytes:
    """Encode a grey image as a PNG, for images that change slowly from row to row.

    Every row is stored as its difference from the row above, and libdeflate compresses at its lowest level. For a map
    of 384 x 384 pixels that takes less than half of the time of OpenCV's encoder, and the file is a tenth smaller.

    Args:
        grey: uint8 `[H, W]`.

    Returns:
        The bytes of the PNG (ISO/IEC 15948).

    Example:
        >>> len(grey_png(np.zeros((64, 64), np.uint8))) < 200
        True
    """
    height, width = grey.shape
    rows = np.empty((height, 1 + width), np.uint8)
    rows[:, 0] = _UP
    rows[0, 1:] = grey[0]
    np.subtract(grey[1:], grey[:-1], out=rows[1:, 1:])
    header = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)  # 8 bits a sample, grey, not interlaced
    pixels = bytes(imagecodecs.deflate_encode(rows.tobytes(), level=1))
    return _SIGNATURE + _chunk(b"IHDR", header) + _chunk(b"IDAT", pixels) + _chunk(b"IEND", b"")


def _chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(data, zlib.crc32(kind)))


def overlay(
    image: NDArray[np.uint8],
    heatmap: NDArray[np.uint8],
    contours: Iterable[NDArray[np.int32]] = (),
) -> NDArray[np.uint8]:
    """Draw a heatmap over its image in colour, more opaque where it is hotter, with the contours of regions in white.

    Args:
        image: uint8 RGB `[H, W, 3]`.
        heatmap: uint8 `[H, W]`, as decoded from `encode_heatmap`.
        contours: int32 `[P, 2]` each, `(x, y)` in pixels.

    Returns:
        uint8 RGB `[H, W, 3]`, a new array.

    Raises:
        ValueError: image and heatmap differ in size.
    """
    if image.shape != (*heatmap.shape, 3):
        raise ValueError(f"image has shape {image.shape}; expected {(*heatmap.shape, 3)} for this heatmap")
    colours = cv2.cvtColor(cv2.applyColorMap(heatmap, cv2.COLORMAP_TURBO), cv2.COLOR_BGR2RGB)
    heat = heatmap[:, :, None].astype(np.float32) / 255
    # At most half of a pixel is colour; where the heatmap is 0, the image is unchanged.
    opacity = np.minimum(heat, 0.5)
    blended: NDArray[np.uint8] = np.rint(image * (1 - opacity) + colours * opacity).astype(np.uint8)
    cv2.polylines(blended, list(contours), isClosed=True, color=(255, 255, 255), thickness=1)
    return blended
