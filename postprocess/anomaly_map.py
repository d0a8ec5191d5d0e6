"""The anomaly map of one ROI: from patch distances on the token grid to a map in pixels and one score."""

import math
from typing import Literal

import cv2
import numpy as np
from numpy.typing import NDArray

ScoreRule = Literal["percentile", "top_mean"]
"""How a map becomes one score: the value at a percentile, or the mean of the values above it."""
_BLUR_REACH = 4
"""Reach of the blur, in sigmas."""


def anomaly_map(
    distances: NDArray[np.float32], token_hw: tuple[int, int], weights: NDArray[np.float32] | None = None
) -> NDArray[np.float32]:
    """Arrange patch distances on their token grid and multiply them by the spatial weights, if there are any.

    Args:
        distances: float32 `[N]`, the patch distance of each token, row by row.
        token_hw: `(h, w)` of the token grid, `h * w == N`.
        weights: float32 `[h, w]`, one per token.

    Returns:
        float32 `[h, w]`. Without weights it shares memory with `distances`.

    Raises:
        ValueError: the sizes do not agree.

    Example:
        >>> anomaly_map(np.array([0, 1, 2, 3, 4, 5], np.float32), (2, 3))
        array([[0., 1., 2.],
               [3., 4., 5.]], dtype=float32)
    """
    height, width = token_hw
    if distances.shape != (height * width,):
        raise ValueError(
            f"distances have shape {distances.shape}; expected [{height * width}] for a {height}×{width} grid"
        )
    grid = distances.reshape(height, width)
    if weights is None:
        return grid
    if weights.shape != grid.shape:
        raise ValueError(f"weights have shape {weights.shape}; the token grid is {grid.shape}")
    return grid * weights


def upsample(anomaly_map: NDArray[np.float32], size_wh: tuple[int, int]) -> NDArray[np.float32]:
    """Resize a map, bilinear with half-pixel centres, so that each value stays at the centre of its patch.

    Args:
        anomaly_map: float32 `[h, w]`.
        size_wh: `(W, H)` in pixels.

    Returns:
        float32 `[H, W]`.

    Raises:
        ValueError: `W` or `H` is below 1.

    Example:
        >>> upsample(np.array([[0, 1]], np.float32), (4, 1))
        array([[0.  , 0.25, 0.75, 1.  ]], dtype=float32)
    """
    if min(size_wh) < 1:
        raise ValueError(f"cannot upsample to {size_wh[0]}×{size_wh[1]} pixels; both must be at least 1")
    return cv2.resize(anomaly_map, size_wh, interpolation=cv2.INTER_LINEAR).astype(np.float32, copy=False)


def cells_inside(mask: NDArray[np.bool_], token_hw: tuple[int, int], blur_sigma: float = 0) -> NDArray[np.bool_]:
    """Return the cells of the token grid that take part in the map inside a mask.

    A cell takes part if `upsample` and `blur` carry its value to a pixel of the mask. A cell just outside does, a cell
    far outside does not.

    Args:
        mask: bool `[H, W]`.
        token_hw: `(h, w)` of the token grid.
        blur_sigma: sigma of the blur in pixels.

    Returns:
        bool `[h, w]`.

    Example:
        >>> cells_inside(np.array([[True, False, False, False, False, False]]), (1, 3)).tolist()
        [[True, False, False]]
    """
    height, width = mask.shape
    reach = math.ceil(_BLUR_REACH * blur_sigma)
    wider = mask.astype(np.uint8)
    if reach:
        wider = np.asarray(cv2.dilate(wider, np.ones((2 * reach + 1, 2 * reach + 1), np.uint8)), np.uint8)
    rows = upsample(np.eye(token_hw[0], dtype=np.float32), (token_hw[0], height))
    columns = upsample(np.eye(token_hw[1], dtype=np.float32), (token_hw[1], width))
    return np.asarray(rows.T @ wider.astype(np.float32) @ columns > 0)


def score(anomaly_map: NDArray[np.float32], percentile: float, mask: NDArray[np.bool_] | None = None) -> float:
    """Return the score of an anomaly map: the percentile of its values inside the mask (`np.percentile`, linear).

    Args:
        anomaly_map: float32 `[H, W]`, before the blur.
        percentile: 0 to 100.
        mask: bool `[H, W]`, the pixels that count; all of them if `None`.

    Returns:
        The score, in the map's unit.

    Raises:
        ValueError: the percentile is out of range, the mask is empty or of another shape, or a value that counts is
            NaN.

    Example:
        >>> score(np.array([[1, 2], [3, 9]], np.float32), 50)
        2.5
    """
    values = _counted(anomaly_map, percentile, mask)
    place = percentile / 100 * (values.size - 1)
    below = math.floor(place)
    # `np.percentile` partitions twice, which takes three times as long. The value is the same, bit for bit.
    values.partition(below)
    low = values[below]
    high = values[below + 1 :].min() if below + 1 < values.size else low
    if math.isnan(high):  # NaN sorts last
        raise ValueError("the anomaly map holds NaN; it has no score")
    step, share = float(high - low), place - below
    return float(low) + step * share if share < 0.5 else float(high) - step * (1 - share)


def top_mean(anomaly_map: NDArray[np.float32], percentile: float, mask: NDArray[np.bool_] | None = None) -> float:
    """Return the score of an anomaly map: the mean of its values above the percentile, inside the mask.

    Args:
        anomaly_map: float32 `[H, W]`, before the blur.
        percentile: 0 to 100; the highest `100 - percentile` % of the pixels count, at least one.
        mask: bool `[H, W]`, the pixels that count; all of them if `None`.

    Returns:
        The score, in the map's unit; the sum is float64.

    Raises:
        ValueError: as `score`.

    Example:
        >>> top_mean(np.array([[1, 2], [3, 9]], np.float32), 50)
        6.0
    """
    values = _counted(anomaly_map, percentile, mask)
    highest = max(1, round((100 - percentile) / 100 * values.size))
    values.partition(values.size - highest)
    top = values[values.size - highest :]
    if np.isnan(top).any():  # NaN sorts last
        raise ValueError("the anomaly map holds NaN; it has no score")
    return float(top.mean(dtype=np.float64))


def score_by(
    rule: ScoreRule, anomaly_map: NDArray[np.float32], percentile: float, mask: NDArray[np.bool_] | None = None
) -> float:
    """Return the score of an anomaly map by a rule: see `score` and `top_mean`."""
    return {"percentile": score, "top_mean": top_mean}[rule](anomaly_map, percentile, mask)


def scored_map(
    distances: NDArray[np.float32],
    token_hw: tuple[int, int],
    size_wh: tuple[int, int],
    *,
    weights: NDArray[np.float32] | None = None,
    rule: ScoreRule = "percentile",
    percentile: float,
    mask: NDArray[np.bool_] | None = None,
) -> tuple[NDArray[np.float32], float]:
    """Turn the patch distances of an image into its anomaly map and its score. Fit, calibration and `/infer` use it.

    Args:
        distances: float32 `[N]`, row by row of the token grid.
        token_hw: `(h, w)` of the token grid, `h * w == N`.
        size_wh: `(W, H)` of the image as sent, in pixels.
        weights: float32 `[h, w]`, the spatial weights, or None.
        rule: how the map becomes a score.
        percentile: 0 to 100, for the rule.
        mask: bool `[H, W]`, the pixels that count; all of them if None.

    Returns:
        The map, float32 `[H, W]`, before the blur and also outside the mask, and its score.

    Raises:
        ValueError: as `anomaly_map`, `upsample` and `score`.

    Example:
        >>> grid, value = scored_map(np.array([0, 1], np.float32), (1, 2), (2, 1), percentile=100)
        >>> grid, value
        (array([[0., 1.]], dtype=float32), 1.0)
    """
    full = upsample(anomaly_map(distances, token_hw, weights), size_wh)
    return full, score_by(rule, full, percentile, mask)


def _counted(
    anomaly_map: NDArray[np.float32], percentile: float, mask: NDArray[np.bool_] | None
) -> NDArray[np.float32]:
    """Return a copy of the values that count, float32 [n].

    Raises:
        ValueError: the percentile is out of range, or the mask is empty or of another shape.
    """
    if not 0 <= percentile <= 100:
        raise ValueError(f"percentile is {percentile}; expected 0 to 100")
    if mask is not None and mask.shape != anomaly_map.shape:
        raise ValueError(f"mask has shape {mask.shape}; the anomaly map is {anomaly_map.shape}")
    values = anomaly_map.flatten() if mask is None else anomaly_map[mask]
    if values.size == 0:
        raise ValueError("no pixel lies inside the mask; there is nothing to score")
    return values


def blur(anomaly_map: NDArray[np.float32], sigma: float) -> NDArray[np.float32]:
    """Smooth a map with a Gaussian that reaches four sigmas. The map is mirrored at its edges, so that sums stay.

    Args:
        anomaly_map: float32 `[H, W]`.
        sigma: in pixels of the map; 0 does not smooth.

    Returns:
        float32 `[H, W]`; for sigma 0 the argument itself.

    Raises:
        ValueError: sigma is negative or not finite.
    """
    if not 0 <= sigma < math.inf:
        raise ValueError(f"blur sigma is {sigma}; expected a finite number of at least 0")
    if sigma == 0:
        return anomaly_map
    return cv2.GaussianBlur(anomaly_map, (0, 0), sigma, borderType=cv2.BORDER_REFLECT).astype(np.float32, copy=False)


def score_in_words(rule: ScoreRule, percentile: float) -> str:
    """Return the rule of a score in words.

    Example:
        >>> score_in_words("percentile", 99)
        'p99'
        >>> score_in_words("top_mean", 99.5)
        'mean of the highest 0.5 %'
    """
    return {"percentile": f"p{percentile:g}", "top_mean": f"mean of the highest {100 - percentile:g} %"}[rule]
