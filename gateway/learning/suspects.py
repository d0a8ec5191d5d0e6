"""OK images that are probably defective. A defective image in a bank hides defects like its own.

k-center greedy chooses the farthest tokens first. So the tokens of a defective image are in every bank that learned it,
and tokens like them are never anomalous again. The leave-one-out score of the image, computed without its own centres,
shows it.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

LIMIT = 5.0
"""Robust z above which an image is a suspect.

Iglewicz and Hoaglin, "How to Detect and Handle Outliers" (1993), use 3.5 for normal scores. The scores here are high
percentiles and nearer to a Gumbel distribution, whose upper tail is heavier. There, a limit of 3.5 accuses two or more
of 40 clean images in 15 % of fits, and a limit of 5 in 1.6 % (with 120 images, in 5 %).
"""
SMALLEST_N = 10
"""Smallest number of images for suspects: the spread of fewer scores is too uncertain."""
_SPREAD_FLOOR = 0.01
"""Smallest spread, as a share of the median: near copies of one image do not make each other suspects."""
_SAME = 1e-6
"""Scores that differ by less count as equal."""
_MAD_TO_SIGMA = 1.4826
"""Standard deviation of normal scores, divided by their median absolute deviation."""


@dataclass(frozen=True, slots=True)
class Suspect:
    """A probably defective image."""

    index: int
    """Position in the sequence of scores."""
    score: float
    robust_z: float


def robust_z(scores: Sequence[float]) -> NDArray[np.float64]:
    """Return the distance of each score above the median, in robust standard deviations.

    It is (s − median) / (1.4826 · MAD), where MAD is the median absolute deviation.

    Args:
        scores: at least one, finite.

    Returns:
        float64 [n].

    >>> robust_z([1.0, 2.0, 3.0, 4.0, 5.0]).round(2).tolist()
    [-1.35, -0.67, 0.0, 0.67, 1.35]
    """
    values = np.asarray(scores, np.float64)
    median = float(np.median(values))
    spread = _MAD_TO_SIGMA * float(np.median(np.abs(values - median)))
    return (values - median) / max(spread, _SPREAD_FLOOR * abs(median), _SAME)


def find_suspects(scores: Sequence[float]) -> list[Suspect]:
    """Return the images with a leave-one-out score far above the others: robust z over 5, among 10 or more images.

    Only high scores are suspect, and at most half of the images. Several NG images with the same defect may hide each
    other: each is near the centres of the others.

    Args:
        scores: leave-one-out scores; may be empty.

    Returns:
        The suspects, worst first.
    """
    if len(scores) < SMALLEST_N:
        return []
    z = robust_z(scores)
    worst_first = np.argsort(-z, kind="stable")
    return [Suspect(int(i), float(scores[i]), float(z[i])) for i in worst_first if z[i] > LIMIT]
