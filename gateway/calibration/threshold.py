"""From scores to a threshold. An image is NG if its score is *above* the threshold."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from gateway.calibration.conformal import conformal_rank, ok_scores_needed
from gateway.store.manifest import Method

_GRID = 21
"""Number of candidates between the two percentiles, including both."""


@dataclass(frozen=True, slots=True)
class Threshold:
    """A threshold and its effect on the scores that it was chosen from."""

    threshold: float
    p99_ok: float
    p5_ng: float | None
    method: Method
    n_ok: int
    n_ng: int
    ok_above: int
    """Number of OK scores that it rejects."""
    ng_below: int
    """Number of NG scores that it accepts."""
    separable: bool | None
    """Whether p99 of OK is below p5 of NG; None without NG scores."""
    n_ok_needed: int | None
    """Number of OK scores missing for the requested rate; None unless the method is conformal."""


def choose_threshold(
    ok_scores: Sequence[float], ng_scores: Sequence[float], margin: float, false_alarm_rate: float | None = None
) -> Threshold:
    """Choose a threshold from OK scores and a few NG scores.

    With NG scores, the threshold lies between p99 of OK and p5 of NG. It is the candidate on a grid between the two
    with the fewest errors or, if the two overlap, with the smallest balanced error. Among equal candidates, it is the
    one nearest to p99 of OK.

    Without NG scores, it is p99 of OK plus the margin. If a false-alarm rate α is requested, it is the OK score of
    rank ⌈(n+1)(1−α)⌉: an exchangeable unseen OK score is above it with a probability of at most α. If n is too small
    for that rank, it is the largest OK score, and `n_ok_needed` tells how many scores are missing.

    Args:
        ok_scores: at least one, finite.
        ng_scores: finite.
        margin: distance of the threshold from p99 of OK, in the unit of the score; only for that method.
        false_alarm_rate: α, between 0 and 1; only without NG scores.

    Raises:
        ValueError: there is no OK score, a score is not finite, or the rate is out of range.
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
    candidates = np.linspace(p99_ok, p5_ng, _GRID)
    ok_above = (ok[None, :] > candidates[:, None]).sum(axis=1)
    ng_below = (ng[None, :] <= candidates[:, None]).sum(axis=1)
    in_order = p99_ok < p5_ng
    error = ok_above + ng_below if in_order else np.round(ok_above / ok.size + ng_below / ng.size, 12)
    return float(candidates[np.argmin(error)])  # the first of equal ones, which is nearest to p99 of OK
