"""Spatial weights: how much each token of an ROI counts, from a manual box or from the variance of OK images."""

import math

import numpy as np
from numpy.typing import NDArray

Box = tuple[float, float, float, float]
"""`(y1, y2, x1, x2)`: rows from `y1` to `y2` and columns from `x1` to `x2` of a square image space."""


class EmptyBoxError(ValueError):
    """A box that covers no part of its image. The message shows the box."""


def clamp_box(box: Box, size: int) -> Box:
    """Cut a box to its image space.

    Args:
        box: `(y1, y2, x1, x2)`.
        size: side of the space, in the box's unit.

    Raises:
        EmptyBoxError: the box lies outside the space or has no area.

    Example:
        >>> clamp_box((-10, 64, 32, 500), 128)
        (0.0, 64.0, 32.0, 128.0)
    """
    y1, y2, x1, x2 = (float(min(max(edge, 0), size)) for edge in box)
    if not (y1 < y2 and x1 < x2):
        shown = ", ".join(f"{edge:g}" for edge in box)
        raise EmptyBoxError(f"[{shown}] is empty in a {size}×{size} image; expected [y1, y2, x1, x2] with y1 < y2")
    return y1, y2, x1, x2


def box_weights(box: Box, size: int, token_hw: tuple[int, int], outside: float, inside: float) -> NDArray[np.float32]:
    """Return the weights of a box on the token grid.

    A token at the edge gets a weight between the two, in proportion to its area inside. A box smaller than a token
    therefore still counts, and a small change of an edge changes the weights a little.

    Args:
        box: `(y1, y2, x1, x2)`, clamped.
        size: side of the box's image space, which covers the whole token grid whatever the image's aspect ratio is.
        token_hw: `(h, w)` of the token grid.
        outside: weight outside the box.
        inside: weight inside the box.

    Returns:
        float32 `[h, w]`.

    Raises:
        EmptyBoxError: the box lies outside the space or has no area.

    Example:
        >>> box_weights((0, 64, 0, 96), 128, (2, 2), outside=0, inside=1)
        array([[1. , 0.5],
               [0. , 0. ]], dtype=float32)
    """
    y1, y2, x1, x2 = clamp_box(box, size)
    rows = _covered(y1 / size, y2 / size, token_hw[0])
    columns = _covered(x1 / size, x2 / size, token_hw[1])
    share = rows[:, None] * columns[None, :]
    return (outside + (inside - outside) * share).astype(np.float32)


def _covered(start: float, stop: float, n: int) -> NDArray[np.float64]:
    """Return the share of each of n equal parts of [0, 1] that lies in [start, stop]."""
    edges = np.arange(n + 1)
    overlap = np.minimum(edges[1:], stop * n) - np.maximum(edges[:-1], start * n)
    return np.asarray(np.clip(overlap, 0, 1), np.float64)


def variance_weights(spread: NDArray[np.float32], low: float, high: float) -> NDArray[np.float32]:
    """Return weights from the spread of the OK maps: the smallest spread gets `high`, the largest gets `low`.

    The spread is normalised to [0, 1], inverted and scaled to [`low`, `high`]. If all tokens have the same spread, all
    get `high`.

    Args:
        spread: float32 `[h, w]`, the standard deviation of each token's distance over the OK images.
        low: smallest weight.
        high: largest weight.

    Returns:
        float32 `[h, w]`.

    Raises:
        ValueError: a spread is not finite.

    Example:
        >>> variance_weights(np.array([[0.1, 0.2, 0.3]], np.float32), 0, 2)
        array([[2., 1., 0.]], dtype=float32)
    """
    smallest, largest = float(spread.min()), float(spread.max())
    if not (math.isfinite(smallest) and math.isfinite(largest)):
        raise ValueError("the spread of the OK maps is not finite")
    if smallest == largest:
        return np.full(spread.shape, high, np.float32)
    normalised = (spread.astype(np.float64) - smallest) / (largest - smallest)
    return (low + (high - low) * (1 - normalised)).astype(np.float32)
