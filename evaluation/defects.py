"""Draw defects of a stated size: coverage masks, and their blend into an image. Pure NumPy and OpenCV."""

from collections.abc import Callable
from itertools import pairwise

import cv2
import numpy as np
from numpy.typing import NDArray

_FINER = 4
"""Masks are drawn at this many times the resolution and averaged, so that a size below a pixel keeps its area."""


def disc(size_wh: tuple[int, int], centre: tuple[float, float], diameter: float) -> NDArray[np.float32]:
    """Return the coverage of a disc.

    Args:
        size_wh: `(W, H)` of the image, in pixels.
        centre: `(x, y)` in pixels; the image spans 0 to W and 0 to H.
        diameter: in pixels.

    Returns:
        float32 [H, W], the covered share of each pixel, 0 to 1.

    Example:
        >>> round(float(disc((40, 40), (20, 20), 10).sum()))  # π · 5²
        79
    """
    return _covered(
        size_wh,
        np.array([centre]),
        diameter / 2,
        lambda x, y: (x - centre[0]) ** 2 + (y - centre[1]) ** 2 <= (diameter / 2) ** 2,
    )


def line(size_wh: tuple[int, int], points: NDArray[np.float64], width: float) -> NDArray[np.float32]:
    """Return the coverage of a line through points.

    Args:
        size_wh: `(W, H)` of the image, in pixels.
        points: float64 [n, 2], `(x, y)` in pixels, at least two.
        width: in pixels.

    Returns:
        float32 [H, W], the covered share of each pixel, 0 to 1.

    Example:
        >>> round(float(line((40, 10), np.array([[10.0, 5.0], [30.0, 5.0]]), 2).sum()))  # 20 × 2, and the round ends
        43
    """

    def inside(x: NDArray[np.float32], y: NDArray[np.float32]) -> NDArray[np.bool_]:
        nearest = np.full(np.broadcast_shapes(x.shape, y.shape), np.inf, np.float32)
        for (x1, y1), (x2, y2) in pairwise(points):
            length2 = max((x2 - x1) ** 2 + (y2 - y1) ** 2, 1e-12)
            along = np.clip(((x - x1) * (x2 - x1) + (y - y1) * (y2 - y1)) / length2, 0, 1)
            np.minimum(nearest, np.hypot(x - x1 - along * (x2 - x1), y - y1 - along * (y2 - y1)), out=nearest)
        return nearest <= width / 2

    return _covered(size_wh, points, width / 2, inside)


def blob(
    size_wh: tuple[int, int], centre: tuple[float, float], diameter: float, random: np.random.Generator
) -> NDArray[np.float32]:
    """Return the coverage of an irregular spot: a disc with a wavy edge and about the same area.

    Args:
        size_wh: `(W, H)` of the image, in pixels.
        centre: `(x, y)` in pixels.
        diameter: of the disc, in pixels.
        random: source of the waves.

    Returns:
        float32 [H, W], the covered share of each pixel, 0 to 1.
    """
    waves = [
        (n, random.uniform(0.05, 0.3 / n), random.uniform(0, 2 * np.pi))
        for n in range(2, 6)  # bumps around the edge
    ]

    def inside(x: NDArray[np.float32], y: NDArray[np.float32]) -> NDArray[np.bool_]:
        angle = np.arctan2(y - centre[1], x - centre[0])
        radius = np.full(angle.shape, diameter / 2, np.float32)
        for n, height, phase in waves:
            radius *= 1 + height * np.sin(n * angle + phase)
        return (x - centre[0]) ** 2 + (y - centre[1]) ** 2 <= radius**2

    return _covered(size_wh, np.array([centre]), diameter, inside)


def paste(image: NDArray[np.uint8], coverage: NDArray[np.float32], contrast: float) -> NDArray[np.uint8]:
    """Darken or brighten a grey image where a defect covers it.

    Args:
        image: uint8 [H, W].
        coverage: float32 [H, W], 0 to 1.
        contrast: relative change of brightness under full coverage; -0.5 halves it.

    Returns:
        uint8 [H, W], clipped to 0 to 255.

    Example:
        >>> paste(np.full((1, 3), 100, np.uint8), np.array([[0, 0.5, 1]], np.float32), -0.5).tolist()
        [[100, 75, 50]]
    """
    changed = image * (1 + contrast * coverage)
    return np.clip(np.rint(changed), 0, 255).astype(np.uint8)


def _covered(
    size_wh: tuple[int, int],
    points: NDArray[np.float64],
    reach: float,
    inside: Callable[[NDArray[np.float32], NDArray[np.float32]], NDArray[np.bool_]],
) -> NDArray[np.float32]:
    """Return the coverage of what lies within `reach` pixels of the points; `inside` decides for each fine pixel."""
    width, height = size_wh
    coverage = np.zeros((height, width), np.float32)
    left, top = np.clip(np.floor(points.min(0) - reach), 0, size_wh).astype(int)
    right, bottom = np.clip(np.ceil(points.max(0) + reach), 0, size_wh).astype(int)
    if right <= left or bottom <= top:
        return coverage
    x = left + (np.arange((right - left) * _FINER, dtype=np.float32)[None, :] + 0.5) / _FINER
    y = top + (np.arange((bottom - top) * _FINER, dtype=np.float32)[:, None] + 0.5) / _FINER
    window = inside(x, y).astype(np.float32)
    coverage[top:bottom, left:right] = cv2.resize(window, (right - left, bottom - top), interpolation=cv2.INTER_AREA)
    return coverage
