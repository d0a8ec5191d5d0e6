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
    each = (1 + confidence) / 2
    return lower_limit(k, n, each), upper_limit(k, n, each)


def all_limits(n: int, confidence: float) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return the two-sided limits for every number of hits, 0 to n: two arrays [n + 1].

    Args:
        n: draws, at least 1.
        confidence: 0–1.
    """
    hits, each = np.arange(n + 1), (1 + confidence) / 2
    return _lower(hits, n, each), _upper(hits, n, each)


def lower_limit(k: int, n: int, confidence: float) -> float:
    """Return the one-sided lower limit of the share; arguments as for `limits`."""
    return float(_lower(np.array([k]), n, confidence)[0])


def upper_limit(k: int, n: int, confidence: float) -> float:
    """Return the one-sided upper limit of the share; arguments as for `limits`.

    Example:
        >>> round(upper_limit(0, 10, 0.95), 4)
        0.2589
    """
    return float(_upper(np.array([k]), n, confidence)[0])


# Of the Beta distribution itself: `scipy.stats`, which has the same limits, takes as long to import as the gateway.
def _lower(hits: NDArray[np.int64], n: int, confidence: float) -> NDArray[np.float64]:
    return np.where(hits == 0, 0.0, scipy.special.betaincinv(np.maximum(hits, 1), n - hits + 1, 1 - confidence))


def _upper(hits: NDArray[np.int64], n: int, confidence: float) -> NDArray[np.float64]:
    return np.where(hits == n, 1.0, scipy.special.betaincinv(hits + 1, np.maximum(n - hits, 1), confidence))
