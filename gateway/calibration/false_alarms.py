"""The share of unseen OK images that a threshold rejects, with a confidence interval."""

from dataclasses import dataclass

from postprocess.binomial import all_limits, limits, upper_limit

_CONFIDENCE = 0.95


@dataclass(frozen=True, slots=True)
class FalseAlarms:
    """The share of unseen images that a threshold judges wrong: of OK images, unless said otherwise."""

    rate: float
    """Expected value, at most."""
    low: float
    """Lower end of the 95 % confidence interval."""
    high: float
    """Upper end of the 95 % confidence interval."""


def either(one: FalseAlarms, other: FalseAlarms) -> FalseAlarms:
    """Return what two thresholds reject together, if each was counted on images of its own: at most the sum.

    >>> either(FalseAlarms(0.25, 0.125, 0.5), FalseAlarms(0.5, 0.25, 0.75))
    FalseAlarms(rate=0.75, low=0.25, high=1.0)
    """
    return FalseAlarms(min(1.0, one.rate + other.rate), max(one.low, other.low), min(1.0, one.high + other.high))


def false_alarms(n_above: int, n_ok: int, *, err_high: bool = False, n_limits: int = 1) -> FalseAlarms:
    """Return what the OK scores above a threshold say about unseen OK images.

    The expected rate is (x + 1) / (n + 1) for x of n scores above the threshold, not x / n. If the threshold is one of
    the n scores, an exchangeable new score is above it with that probability: 1/2 for a threshold at the only score.
    Between that score and the next one, the probability is lower. The Clopper–Pearson interval is also that
    of the Beta distributions of the rate where the threshold lies between two order statistics.

    Args:
        n_above: OK scores above the threshold, 0 ≤ n_above ≤ n_ok.
        n_ok: OK scores, at least 1.
        err_high: whether the scores are leave-one-out scores. These err on the high side: the centres of an image are
            left out and not replaced, as they would be in a coreset built without the image. They bound the rate from
            above only, and the interval is one-sided.
        n_limits: thresholds that each rest on an OK image of their own. Every further one adds 1/(n+1) to the rate, and
            counts as one image more for the upper end of the interval.

    >>> false_alarms(0, 1).rate
    0.5
    """
    at_most = min(n_above + n_limits - 1, n_ok)
    if err_high:
        low, high = 0.0, upper_limit(at_most, n_ok, _CONFIDENCE)
    else:
        low, high = limits(n_above, n_ok, _CONFIDENCE)[0], limits(at_most, n_ok, _CONFIDENCE)[1]
    return FalseAlarms((at_most + 1) / (n_ok + 1), low, high)


def by_rejected(n_ok: int) -> list[FalseAlarms]:
    """Return what `false_alarms` says for each number of rejected OK images, 0 to n."""
    low, high = all_limits(n_ok, _CONFIDENCE)
    return [FalseAlarms(min(1.0, (x + 1) / (n_ok + 1)), float(low[x]), float(high[x])) for x in range(n_ok + 1)]


def misses(n_ng: int) -> list[FalseAlarms]:
    """Return the share of defects that pass, for each number of NG images that pass, 0 to n, with its interval."""
    low, high = all_limits(n_ng, _CONFIDENCE)
    return [FalseAlarms(x / n_ng, float(low[x]), float(high[x])) for x in range(n_ng + 1)]
