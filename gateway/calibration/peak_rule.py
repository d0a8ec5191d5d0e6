"""One deciding statistic with one stated rate: thresholds of the peak and of the score for a false-alarm rate.

An image is NG if its peak reaches the threshold of the peak, or if its score is above the threshold of the score. The
rate α is that of both together.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from gateway.calibration.conformal import conformal_rank, ok_scores_needed
from gateway.calibration.threshold import choose_threshold
from gateway.store.manifest import Method


@dataclass(frozen=True, slots=True)
class PeakChoice:
    """The two thresholds, and what they do to the images that they were chosen from."""

    threshold: float
    """An image whose score is above it is NG."""
    peak_threshold: float
    """An image whose peak is at or above it is NG."""
    method: Method
    p99_ok: float
    p5_ng: float | None
    n_ok: int
    n_ng: int
    ok_above: int
    """Number of OK scores above the threshold of the score."""
    ng_below: int
    """Number of NG scores that are not."""
    separable: bool | None
    n_ok_needed: int
    """Number of OK images that are missing for the rate."""
    n_rejected: int
    """Number of OK images with maps that the verdict rejects; with given scores, that the peak rejects."""
    n_limits: int
    """2 if the threshold of the score is below the level of the peak and rejects images of its own; else 1."""
    missed_ng: tuple[float, ...]
    """Scores of the NG images that pass, as far as is known: an image whose peak is unknown counts by its score."""


def level_of(statistics: Sequence[float], false_alarm_rate: float) -> float:
    """Return the OK value of conformal rank ⌈(n+1)(1−α)⌉, or the largest where there are fewer than 1/α − 1.

    An exchangeable unseen OK image is above it with a probability of at most α; in the latter case of 1/(n+1).

    >>> level_of([0.25, 0.5, 0.75, 1.0], 0.4)  # rank 3 of 4
    0.75
    """
    ascending = np.sort(np.asarray(statistics, np.float64))
    return float(ascending[min(conformal_rank(ascending.size, false_alarm_rate), ascending.size) - 1])


def just_above(level: float) -> float:
    """Return the next number in float32: an image that reaches no more than the level shows no region from there on.

    >>> just_above(0.75)
    0.7500000596046448
    """
    return float(np.nextafter(np.float32(level), np.float32(math.inf)))


def choose_by_peak(
    scores: Sequence[float],
    peaks: Sequence[float],
    *,
    margin: float,
    false_alarm_rate: float,
    given_scores: Sequence[float] = (),
    ng_scores: Sequence[float] = (),
    ng_peaks: Sequence[float] = (),
    given: float | None = None,
) -> PeakChoice:
    """Choose both thresholds.

    One conformal rank decides: that of the larger of peak and score of each OK image. Both thresholds lie at that
    level, so that the whole verdict has the rate α. A score seldom exceeds a level that the peak does not reach: the
    score then costs no false alarms. Two exceptions move the threshold of the score alone:

    - Without NG scores, it is at least p99 of OK plus the margin.
    - NG scores can only lower it: it is the candidate between p99 of OK and p5 of NG with the fewest errors
      (`choose_threshold`), at most the threshold without NG scores, and just below the NG scores that this would
      pass, as far as that rejects no further OK image. An unseen image may then exceed either threshold
      (`n_limits` is 2).

    NG peaks cannot lower the threshold of the peak: without them it is already the lowest one that α allows.

    Args:
        scores: of the OK images with maps, at least one.
        peaks: of the same images, in the same order; `-inf` where no region fits.
        margin: distance of the threshold from p99 of OK without NG, in the unit of the score.
        false_alarm_rate: α, between 0 and 1.
        given_scores: scores of unseen OK images, which count instead of `scores` for the threshold of the score. Their
            peaks are unknown: it is the highest of them, or p99 plus the margin; with NG scores at or above their
            conformal rank.
        ng_scores: of NG images.
        ng_peaks: of the same images in the same order, or empty if unknown.
        given: a threshold of the peak that counts instead of the rate. The threshold of the score is equal to it, or
            p99 of OK plus the margin where that is higher; NG scores do not lower it.

    Raises:
        ValueError: there is no OK score, a score is not finite, or the rate is out of range.
    """
    own = np.asarray(scores, np.float64)
    level = level_of(np.maximum(own, np.asarray(peaks, np.float64)).tolist(), false_alarm_rate)
    level = level if given is None else given
    peak_threshold = just_above(level) if given is None else given
    by_peak = np.asarray(peaks, np.float32) >= np.float32(peak_threshold)
    ok = np.asarray(given_scores, np.float64) if len(given_scores) else own
    specified = choose_threshold(ok.tolist(), ng_scores, margin)
    if len(given_scores):
        floor = level_of(given_scores, false_alarm_rate)
        without_ng = max(float(ok.max()), specified.p99_ok + margin)
    else:
        passing_ok = own[~by_peak & (own <= level)]
        floor = float(passing_ok.max()) if passing_ok.size else level
        without_ng = max(level, specified.p99_ok + margin)
    threshold = without_ng if not len(ng_scores) else min(max(specified.threshold, floor), without_ng)
    if given is not None:
        threshold = without_ng
    passing = [score for score in ng_scores if floor < score <= threshold] if given is None else []
    if passing:
        threshold = max(floor, float(np.nextafter(min(passing), -math.inf)))
    return PeakChoice(
        threshold=threshold,
        peak_threshold=peak_threshold,
        method="given" if given is not None else "grid" if len(ng_scores) else "conformal",
        p99_ok=specified.p99_ok,
        p5_ng=specified.p5_ng,
        n_ok=specified.n_ok,
        n_ng=specified.n_ng,
        ok_above=int((ok > threshold).sum()),
        ng_below=sum(score <= threshold for score in ng_scores),
        separable=specified.separable,
        n_ok_needed=max(0, ok_scores_needed(false_alarm_rate) - len(peaks)),
        n_rejected=int((by_peak | (own > threshold)).sum()) if not len(given_scores) else int(by_peak.sum()),
        n_limits=1 if threshold >= level else 2,
        missed_ng=tuple(
            score
            for i, score in enumerate(ng_scores)
            if score <= threshold and not (len(ng_peaks) and np.float32(ng_peaks[i]) >= np.float32(peak_threshold))
        ),
    )
