"""Which of the OK images look as if they were none: an NG image among them poisons a bank.

k-center takes what is farthest first, so the tokens of a stray NG image are in every bank that learned it, and nothing
like them is ever found anomalous again. Its own leave-one-out score gives it away: its centres are not there.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

LIMIT = 5.0
"""Robust z above which an image is a suspect.

Iglewicz and Hoaglin, "How to Detect and Handle Outliers" (1993), take 3.5 for normal scores. These are high
percentiles, nearer to a Gumbel distribution, whose upper tail is heavier: there 3.5 accuses two or more of 40 clean
images in 15 % of fits, 5 in 1.6 % (of 120 images, in 5 %).
"""
SMALLEST_N = 10
"""Images below which nobody is called a suspect: the spread of fewer scores is too uncertain."""
_SPREAD_FLOOR = 0.01
"""Of the median: what images of the same part differ by anyway, so that near copies do not make each other suspect."""
_SAME = 1e-6
"""Scores that differ by less are the same."""
_MAD_TO_SIGMA = 1.4826
"""Makes the median absolute deviation of normal scores their standard deviation."""


@dataclass(frozen=True, slots=True)
class Suspect:
    """An image by its place in the sequence of scores."""

    index: int
    score: float
    robust_z: float


def robust_z(scores: Sequence[float]) -> NDArray[np.float64]:
    """How far each score is above the median, in robust standard deviations: (s − median) / (1.4826 · MAD).

    Args:
        scores: at least one, finite.

    Returns:
        float64 [n].

    Example:
        >>> robust_z([1.0, 2.0, 3.0, 4.0, 5.0]).round(2).tolist()
        [-1.35, -0.67, 0.0, 0.67, 1.35]
    """
    values = np.asarray(scores, np.float64)
    median = float(np.median(values))
    spread = _MAD_TO_SIGMA * float(np.median(np.abs(values - median)))
    return (values - median) / max(spread, _SPREAD_FLOOR * abs(median), _SAME)


def find_suspects(scores: Sequence[float]) -> list[Suspect]:
    """The images whose leave-one-out score stands out: robust z over 5, among 10 images or more.

    Only high scores are suspect. At most half of the images can be. Several NG images of one kind may hide each other:
    each finds the other's centres in the bank.

    Args:
        scores: leave-one-out scores; empty gives none.

    Returns:
        The suspects, worst first.
    """
    if len(scores) < SMALLEST_N:
        return []
    z = robust_z(scores)
    worst_first = np.argsort(-z, kind="stable")
    return [Suspect(int(i), float(scores[i]), float(z[i])) for i in worst_first if z[i] > LIMIT]
