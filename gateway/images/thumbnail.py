"""Small pictures for lists."""

import cv2
import numpy as np
from numpy.typing import NDArray

SIDE = 192
"""Longest side of a thumbnail unless another is asked for, in pixels."""
_QUALITY = 80


def thumbnail(pixels: NDArray[np.uint8], side: int = SIDE) -> bytes:
    """Return a small JPEG of an image, with its aspect ratio. An image that is small already keeps its size.

    Args:
        pixels: uint8 [H, W] grey or [H, W, 3] RGB, upright.
        side: longest side of the picture, in pixels.
    """
    height, width = pixels.shape[:2]
    scale = side / max(height, width)
    if scale < 1:
        size_wh = max(1, round(width * scale)), max(1, round(height * scale))
        pixels = np.asarray(cv2.resize(pixels, size_wh, interpolation=cv2.INTER_AREA), np.uint8)
    if pixels.ndim == 3:
        pixels = np.asarray(cv2.cvtColor(pixels, cv2.COLOR_RGB2BGR), np.uint8)
    return cv2.imencode(".jpg", pixels, (cv2.IMWRITE_JPEG_QUALITY, _QUALITY))[1].tobytes()
