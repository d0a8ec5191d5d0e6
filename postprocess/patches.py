"""Patches of the token grid in the pixels of an image: which patch a pixel lies in, its box, a crop around it."""

import cv2
import numpy as np
from numpy.typing import NDArray

Box = tuple[int, int, int, int]
"""`(x, y, w, h)` in pixels."""

_LARGEST_SIDE = 256
"""Longest side of a crop's PNG in pixels; a larger crop is scaled down."""


def patch_at(xy: tuple[int, int], token_hw: tuple[int, int], size_wh: tuple[int, int]) -> int:
    """Return the place in the token grid, counted along rows, of the patch under a pixel.

    Args:
        xy: the pixel, `(x, y)`.
        token_hw: `(h, w)` of the token grid.
        size_wh: `(W, H)` of the image in pixels.

    Example:
        >>> patch_at((3, 0), (1, 2), (4, 1)), patch_at((1, 0), (1, 2), (4, 1))
        (1, 0)
    """
    (x, y), (height, width) = xy, token_hw
    column, row = (2 * x + 1) * width // (2 * size_wh[0]), (2 * y + 1) * height // (2 * size_wh[1])
    return row * width + column


def patch_box(place: int, token_hw: tuple[int, int], size_wh: tuple[int, int]) -> Box:
    """Return the box of a patch: all pixels that the patch covers, also in part.

    Args:
        place: place in the token grid, counted along rows.
        token_hw: `(h, w)` of the token grid.
        size_wh: `(W, H)` of the image in pixels.

    Example:
        >>> patch_box(1, (1, 3), (10, 4))
        (3, 0, 4, 4)
    """
    row, column = divmod(place, token_hw[1])
    x, width = _span(column, token_hw[1], size_wh[0])
    y, height = _span(row, token_hw[0], size_wh[1])
    return x, y, width, height


def with_context(box: Box, size_wh: tuple[int, int]) -> Box:
    """Return a box of three times the width and height around another one, cut at the edges of the image.

    Example:
        >>> with_context((3, 0, 4, 4), (10, 4))
        (0, 0, 10, 4)
    """
    x, y, width, height = box
    left, top = max(0, x - width), max(0, y - height)
    right, bottom = min(size_wh[0], x + 2 * width), min(size_wh[1], y + 2 * height)
    return left, top, right - left, bottom - top


def crop_png(pixels: NDArray[np.uint8], box: Box) -> bytes:
    """Return a box of an image as PNG. A crop with a side of more than 256 pixels is scaled down to that.

    Args:
        pixels: uint8 `[H, W]` grey or `[H, W, 3]` RGB.
        box: lies inside the image.
    """
    x, y, width, height = box
    crop = pixels[y : y + height, x : x + width]
    longest = max(width, height)
    if longest > _LARGEST_SIDE:
        size = (max(1, width * _LARGEST_SIDE // longest), max(1, height * _LARGEST_SIDE // longest))
        crop = np.asarray(cv2.resize(crop, size, interpolation=cv2.INTER_AREA), np.uint8)
    _, png = cv2.imencode(".png", crop if crop.ndim == 2 else cv2.cvtColor(crop, cv2.COLOR_RGB2BGR))
    return png.tobytes()


def _span(index: int, n: int, size: int) -> tuple[int, int]:
    """Return the first pixel and the number of pixels of one of n equal parts of a side."""
    first, last = index * size // n, -(-(index + 1) * size // n)
    return first, last - first
