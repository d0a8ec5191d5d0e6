"""Conformal ranks: a threshold for a false-alarm rate, whatever the distribution of the scores.

- Vovk, Gammerman and Shafer, "Algorithmic Learning in a Random World" (2005), and Papadopoulos et al., "Inductive
  Confidence Machines for Regression" (2002): split conformal prediction, the rank ⌈(n+1)(1−α)⌉.
- Barber, Candès, Ramdas and Tibshirani, "Predictive inference with the jackknife+" (2021): for leave-one-out scores,
  the same rank holds approximately.
"""

import math
from fractions import Fraction


def conformal_rank(n: int, false_alarm_rate: float) -> int:
    """Return ⌈(n+1)(1−α)⌉, the rank of the threshold, counted from 1 among ascending scores.

    Rank n + 1 means that n scores are too few for the rate.

    Raises:
        ValueError: the rate is not between 0 and 1.

    >>> conformal_rank(19, 0.05), conformal_rank(18, 0.05)
    (19, 19)
    """
    return math.ceil((n + 1) * (1 - _exact(false_alarm_rate)))


def ok_scores_needed(false_alarm_rate: float) -> int:
    """Return the smallest number of OK scores for which the conformal rank exists: ⌈1/α⌉ − 1.

    Raises:
        ValueError: the rate is not between 0 and 1.

    >>> ok_scores_needed(0.01)
    99
    """
    return math.ceil(1 / _exact(false_alarm_rate)) - 1


def _exact(false_alarm_rate: float) -> Fraction:
    """Return the decimal number that was written: 20 × (1 − 0.05) is 19, not a little more."""
    if not 0 < false_alarm_rate < 1:
        raise ValueError(f"false_alarm_rate is {false_alarm_rate}; expected a number between 0 and 1")
    return Fraction(str(false_alarm_rate))
