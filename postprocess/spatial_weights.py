"""Spatial weights: how much each token of an ROI counts, from a box drawn by hand or from how OK images vary."""

import math

import numpy as np
from numpy.typing import NDArray

Box = tuple[float, float, float, float]
"""`(y1, y2, x1, x2)`: rows from `y1` up to `y2`, columns from `x1` up to `x2`, in a square image space."""


class EmptyBoxError(ValueError):
    """A box that covers nothing of its image; the message shows it."""


def clamp_box(box: Box, size: int) -> Box:
    """Cut a box to its image space.

    Args:
        box: `(y1, y2, x1, x2)`.
        size: side of the space, in the box's unit.

    Raises:
        EmptyBoxError: if nothing is left.

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
    """Weights of a box on the token grid: a token's is the mean of the box's over the token's own area.

    A token that the edge cuts gets a weight between the two, by the share of it inside, so that a box smaller than a
    token still counts and moving an edge by a little changes the weights by a little.

    Args:
        box: `(y1, y2, x1, x2)`, clamped.
        size: side of the box's image space; the whole of it is the whole token grid, whatever the image's aspect.
        token_hw: `(h, w)` of the token grid.
        outside: weight outside the box.
        inside: weight inside.

    Returns:
        float32 `[h, w]`.

    Raises:
        EmptyBoxError: if the box covers nothing.

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
    """Share of each of n equal parts of [0, 1] that lies in [start, stop]."""
    edges = np.arange(n + 1)
    overlap = np.minimum(edges[1:], stop * n) - np.maximum(edges[:-1], start * n)
    return np.asarray(np.clip(overlap, 0, 1), np.float64)


def variance_weights(spread: NDArray[np.float32], low: float, high: float) -> NDArray[np.float32]:
    """Weights from how much the OK maps vary: the steadiest token gets `high`, the most restless `low`.

    The spread is normalised to [0, 1], inverted, and scaled between the two. Where it is the same everywhere, every
    token gets `high`.

    Args:
        spread: float32 `[h, w]`, the standard deviation of each token's distance over the OK images.
        low: smallest weight.
        high: largest weight.

    Returns:
        float32 `[h, w]`.

    Raises:
        ValueError: if a spread is not finite.

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
