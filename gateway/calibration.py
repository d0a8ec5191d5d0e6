"""From scores to a threshold. An image is NG when its score is *above* the threshold."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

_GRID = 21
"""Candidates between the two percentiles, ends included: odd, so that the middle is one of them."""

Method = Literal["p99_ok+margin", "grid"]


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


def choose_threshold(ok_scores: Sequence[float], ng_scores: Sequence[float], margin: float) -> Threshold:
    """Choose a threshold from OK scores and the few NG scores there are.

    Without NG it is p99 of OK plus the margin. With NG it lies between p99 of OK and p5 of NG: on a grid between the
    two, the one with the fewest errors where they are in order, the one with the least balanced error where they
    overlap, and in either case the nearest to the middle among equals.

    Args:
        ok_scores: at least one, finite.
        ng_scores: finite.
        margin: of the threshold above p99 of OK, in units of the score.

    Raises:
        ValueError: no OK score, or a score that is not finite.
    """
    ok = np.asarray(ok_scores, np.float64)
    ng = np.asarray(ng_scores, np.float64)
    if ok.size == 0:
        raise ValueError("at least one OK score is needed")
    if not (np.isfinite(ok).all() and np.isfinite(ng).all()):
        raise ValueError("scores must be finite numbers")
    p99_ok = float(np.percentile(ok, 99))
    if ng.size == 0:
        return _judged(p99_ok + margin, p99_ok, None, "p99_ok+margin", ok, ng, None)
    p5_ng = float(np.percentile(ng, 5))
    separable = p99_ok < p5_ng
    candidates = np.linspace(min(p99_ok, p5_ng), max(p99_ok, p5_ng), _GRID)
    ok_above = (ok[None, :] > candidates[:, None]).sum(axis=1)
    ng_below = (ng[None, :] <= candidates[:, None]).sum(axis=1)
    error = ok_above + ng_below if separable else np.round(ok_above / ok.size + ng_below / ng.size, 12)
    from_middle = np.abs(np.arange(_GRID) - _GRID // 2)
    best = np.lexsort((from_middle, error))[0]
    return _judged(float(candidates[best]), p99_ok, p5_ng, "grid", ok, ng, separable)


def _judged(
    threshold: float,
    p99_ok: float,
    p5_ng: float | None,
    method: Method,
    ok: NDArray[np.float64],
    ng: NDArray[np.float64],
    separable: bool | None,
) -> Threshold:
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
    )
