"""From scores to a threshold. An image is NG when its score is *above* the threshold.

What a threshold does to unseen OK images is stated from order statistics alone, whatever the scores' distribution:

- Vovk, Gammerman and Shafer, "Algorithmic Learning in a Random World" (2005), and Papadopoulos et al., "Inductive
  Confidence Machines for Regression" (2002): split conformal prediction, the rank ⌈(n+1)(1−α)⌉.
- Barber, Candès, Ramdas and Tibshirani, "Predictive inference with the jackknife+" (2021): why the same rank among
  leave-one-out scores holds about, not exactly.
- Clopper and Pearson, "The use of confidence or fiducial limits illustrated in the case of the binomial" (1934).
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction

import numpy as np
import scipy
from numpy.typing import NDArray

from gateway.store.manifest import Method

_GRID = 21
"""Candidates between the two percentiles, ends included: odd, so that the middle is one of them."""
_CONFIDENCE = 0.95


@dataclass(frozen=True, slots=True)
class Threshold:
    """A threshold and what it does to the scores it was made from."""

    threshold: float
    p99_ok: float
    p5_ng: float | None
    method: Method
    n_ok: int
    n_ng: int
    ok_above: int
    """OK scores that it would reject."""
    ng_below: int
    """NG scores that it would let pass."""
    separable: bool | None
    """Whether p99 of OK lies below p5 of NG; None without NG."""
    n_ok_needed: int | None
    """How many more OK scores the rate that was asked for takes; None where the method is not conformal."""


@dataclass(frozen=True, slots=True)
class FalseAlarms:
    """What share of unseen OK images is rejected."""

    rate: float
    """Expected, at most."""
    low: float
    high: float
    """Ends of a 95 % confidence interval."""


def choose_threshold(
    ok_scores: Sequence[float], ng_scores: Sequence[float], margin: float, false_alarm_rate: float | None = None
) -> Threshold:
    """Choose a threshold from OK scores and the few NG scores there are.

    With NG it lies between p99 of OK and p5 of NG: on a grid between the two, the one with the fewest errors where they
    are in order, the one with the least balanced error where they overlap, and in either case the nearest to the middle
    among equals. Without NG it is p99 of OK plus the margin, or, where a false-alarm rate α is asked for, the OK score
    of rank ⌈(n+1)(1−α)⌉: an unseen OK score that is exchangeable with these is above it with probability α at most.
    Where n is too small for that rank, it is the largest OK score, and `n_ok_needed` says how many are missing.

    Args:
        ok_scores: at least one, finite.
        ng_scores: finite.
        margin: of the threshold above p99 of OK, in units of the score; for that method only.
        false_alarm_rate: α, between 0 and 1; counts only without NG scores.

    Raises:
        ValueError: no OK score, a score that is not finite, or a rate out of range.
    """
    ok = np.asarray(ok_scores, np.float64)
    ng = np.asarray(ng_scores, np.float64)
    if ok.size == 0:
        raise ValueError("at least one OK score is needed")
    if not (np.isfinite(ok).all() and np.isfinite(ng).all()):
        raise ValueError("scores must be finite numbers")
    p99_ok = float(np.percentile(ok, 99))
    p5_ng = None if ng.size == 0 else float(np.percentile(ng, 5))
    separable = None if p5_ng is None else p99_ok < p5_ng
    n_ok_needed = None
    method: Method
    if p5_ng is not None:
        method, threshold = "grid", _on_grid(ok, ng, p99_ok, p5_ng)
    elif false_alarm_rate is not None:
        method = "conformal"
        n_ok_needed = max(0, ok_scores_needed(false_alarm_rate) - ok.size)
        threshold = float(np.sort(ok)[min(conformal_rank(ok.size, false_alarm_rate), ok.size) - 1])
    else:
        method, threshold = "p99_ok+margin", p99_ok + margin
    return Threshold(
        threshold=threshold,
        p99_ok=p99_ok,
        p5_ng=p5_ng,
        method=method,
        n_ok=ok.size,
        n_ng=ng.size,
        ok_above=int((ok > threshold).sum()),
        ng_below=int((ng <= threshold).sum()),
        separable=separable,
        n_ok_needed=n_ok_needed,
    )


def _on_grid(ok: NDArray[np.float64], ng: NDArray[np.float64], p99_ok: float, p5_ng: float) -> float:
    candidates = np.linspace(min(p99_ok, p5_ng), max(p99_ok, p5_ng), _GRID)
    ok_above = (ok[None, :] > candidates[:, None]).sum(axis=1)
    ng_below = (ng[None, :] <= candidates[:, None]).sum(axis=1)
    in_order = p99_ok < p5_ng
    error = ok_above + ng_below if in_order else np.round(ok_above / ok.size + ng_below / ng.size, 12)
    from_middle = np.abs(np.arange(_GRID) - _GRID // 2)
    return float(candidates[np.lexsort((from_middle, error))[0]])


def conformal_rank(n: int, false_alarm_rate: float) -> int:
    """⌈(n+1)(1−α)⌉, counted from 1 among ascending scores; n + 1 means that n is too small.

    Raises:
        ValueError: the rate is not between 0 and 1.

    Example:
        >>> conformal_rank(19, 0.05), conformal_rank(18, 0.05)
        (19, 19)
    """
    return math.ceil((n + 1) * (1 - _exact(false_alarm_rate)))


def ok_scores_needed(false_alarm_rate: float) -> int:
    """The fewest OK scores among which the conformal rank exists: ⌈1/α⌉ − 1.

    Raises:
        ValueError: the rate is not between 0 and 1.

    Example:
        >>> ok_scores_needed(0.01)
        99
    """
    return math.ceil(1 / _exact(false_alarm_rate)) - 1


def _exact(false_alarm_rate: float) -> Fraction:
    """The decimal number that was written: 20 × (1 − 0.05) is 19, not a little more."""
    if not 0 < false_alarm_rate < 1:
        raise ValueError(f"false_alarm_rate is {false_alarm_rate}; expected a number between 0 and 1")
    return Fraction(str(false_alarm_rate))


def false_alarms(n_above: int, n_ok: int, *, err_high: bool = False) -> FalseAlarms:
    """What the share of OK scores above a threshold says of unseen OK images.

    The expected rate is (x + 1) / (n + 1) for x of n above, not x / n: where the threshold is itself one of the n
    scores, an exchangeable new one is above it with that probability (1/2 for a threshold at the only score there is),
    and less anywhere up to the next. The interval is Clopper and Pearson's; it is also that of the rate's own Beta
    distributions where the threshold lies between two order statistics.

    Args:
        n_above: OK scores above the threshold, 0 ≤ n_above ≤ n_ok.
        n_ok: OK scores, at least 1.
        err_high: the scores are leave-one-out, which err on the high side: the tokens that an image gave to the coreset
            go, and none take their place, as they would in a coreset built without it. They bound the rate from above
            only: the interval is one-sided.

    Example:
        >>> false_alarms(0, 1).rate
        0.5
    """
    tail = 1 - _CONFIDENCE if err_high else (1 - _CONFIDENCE) / 2
    low = 0.0 if n_above == 0 or err_high else float(scipy.special.betaincinv(n_above, n_ok - n_above + 1, tail))
    high = 1.0 if n_above == n_ok else float(scipy.special.betaincinv(n_above + 1, n_ok - n_above, 1 - tail))
    return FalseAlarms(rate=(n_above + 1) / (n_ok + 1), low=low, high=high)
