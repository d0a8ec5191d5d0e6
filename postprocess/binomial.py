"""Confidence limits of a share, from counts."""

from scipy.stats import binomtest


def lower_limit(k: int, n: int, confidence: float) -> float:
    """Return the one-sided lower confidence limit of a share (Clopper and Pearson).

    Args:
        k: number of hits.
        n: number of trials, at least 1.
        confidence: probability that the true share is not below the limit.
    """
    return float(binomtest(k, n, alternative="greater").proportion_ci(confidence, "exact").low)
