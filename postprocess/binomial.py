"""Confidence limits of a share, after Clopper and Pearson.

Clopper and Pearson, "The use of confidence or fiducial limits illustrated in the case of the binomial" (1934). The
limits are exact: they hold with at least the stated confidence for every share.
"""

import numpy as np
import scipy
from numpy.typing import NDArray


def limits(k: int, n: int, confidence: float) -> tuple[float, float]:
    """Return the two-sided limits of the share that k of n draws estimate.

    Args:
        k: hits, 0 ≤ k ≤ n.
        n: draws, at least 1.
        confidence: 0–1.

    Example:
        >>> tuple(round(limit, 4) for limit in limits(0, 10, 0.95))
        (0.0, 0.3085)
    """
    return _limits(k, n, confidence, "two-sided")


def all_limits(n: int, confidence: float) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return the two-sided limits for every number of hits, 0 to n: two arrays [n + 1].

    Args:
        n: draws, at least 1.
        confidence: 0–1.
    """
    hits, tail = np.arange(n + 1), (1 - confidence) / 2
    low, high = np.zeros(n + 1), np.ones(n + 1)
    low[1:] = scipy.special.betaincinv(hits[1:], n - hits[1:] + 1, tail)
    high[:-1] = scipy.special.betaincinv(hits[:-1] + 1, n - hits[:-1], 1 - tail)
    return low, high


def lower_limit(k: int, n: int, confidence: float) -> float:
    """Return the one-sided lower limit of the share; arguments as for `limits`."""
    return _limits(k, n, confidence, "greater")[0]


def upper_limit(k: int, n: int, confidence: float) -> float:
    """Return the one-sided upper limit of the share; arguments as for `limits`.

    Example:
        >>> round(upper_limit(0, 10, 0.95), 4)
        0.2589
    """
    return _limits(k, n, confidence, "less")[1]


def _limits(k: int, n: int, confidence: float, alternative: str) -> tuple[float, float]:
    # `scipy.stats` is loaded on first use: importing it takes as long as importing the gateway.
    found = scipy.stats.binomtest(k, n, alternative=alternative).proportion_ci(confidence, "exact")
    return float(found.low), float(found.high)
