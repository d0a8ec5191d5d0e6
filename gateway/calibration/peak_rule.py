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
    """Number of OK images with maps that the verdict rejects."""
    missed_ng: tuple[float, ...]
    """Scores of the NG images that pass, as far as is known: an image whose peak is unknown counts by its score."""


def peak_threshold_of(peaks: Sequence[float], false_alarm_rate: float) -> float:
    """Return the threshold of the peak: just above the OK peak of conformal rank ⌈(n+1)(1−α)⌉.

    An exchangeable unseen OK image reaches it with a probability of at most α. With fewer than 1/α − 1 peaks it is
    just above the largest one: the probability is at most 1/(n+1).

    Args:
        peaks: of at least one OK image, as `postprocess.peak.peak` returns them; `-inf` where no region fits.
        false_alarm_rate: α, between 0 and 1.

    >>> peak_threshold_of([0.25, 0.5, 0.75, 1.0], 0.4)  # rank 3 of 4, in float32
    0.7500000596046448
    """
    ascending = np.sort(np.asarray(peaks, np.float32))
    level = ascending[min(conformal_rank(ascending.size, false_alarm_rate), ascending.size) - 1]
    # The map is compared in float32, and a region begins at the threshold: the image that set it must show none.
    return float(np.nextafter(max(level, np.float32(0)), np.float32(math.inf)))


def choose_by_peak(
    scores: Sequence[float],
    peaks: Sequence[float],
    *,
    margin: float,
    false_alarm_rate: float,
    given_scores: Sequence[float] = (),
    ng_scores: Sequence[float] = (),
    ng_peaks: Sequence[float] = (),
) -> PeakChoice:
    """Choose both thresholds.

    The threshold of the peak comes from the OK peaks alone. The OK images that reach it use up the rate, so the
    threshold of the score rejects no further OK image: it is at or above the highest score of the others.

    - Without NG scores, it is that score or p99 of OK plus the margin, whichever is higher.
    - NG scores can only lower it: it is the candidate between p99 of OK and p5 of NG with the fewest errors
      (`choose_threshold`), at most the threshold without NG scores, and just below the NG scores that this would
      pass, as far as that rejects no further OK image.

    Args:
        scores: of the OK images with maps, at least one.
        peaks: of the same images, in the same order.
        margin: distance of the threshold from p99 of OK without NG, in the unit of the score.
        false_alarm_rate: α, between 0 and 1.
        given_scores: scores of unseen OK images, which count instead of `scores`. Their peaks are unknown: the
            threshold of the score stays at or above their conformal rank.
        ng_scores: of NG images.
        ng_peaks: of the same images in the same order, or empty if unknown.

    Raises:
        ValueError: there is no OK score, a score is not finite, or the rate is out of range.
    """
    own = np.asarray(scores, np.float64)
    level = peak_threshold_of(peaks, false_alarm_rate)
    by_peak = np.asarray(peaks, np.float32) >= np.float32(level)
    ok = np.asarray(given_scores, np.float64) if len(given_scores) else own
    specified = choose_threshold(ok.tolist(), ng_scores, margin)
    if len(given_scores):
        floor = float(np.sort(ok)[min(conformal_rank(ok.size, false_alarm_rate), ok.size) - 1])
        highest = float(ok.max())
    else:
        floor = highest = float(own[~by_peak].max()) if not by_peak.all() else float(own.max())
    without_ng = max(highest, specified.p99_ok + margin)
    threshold = without_ng if not len(ng_scores) else min(max(specified.threshold, floor), without_ng)
    passing = [score for score in ng_scores if floor < score <= threshold]
    if passing:
        threshold = max(floor, float(np.nextafter(min(passing), -math.inf)))
    return PeakChoice(
        threshold=threshold,
        peak_threshold=level,
        method="grid" if len(ng_scores) else "conformal",
        p99_ok=specified.p99_ok,
        p5_ng=specified.p5_ng,
        n_ok=specified.n_ok,
        n_ng=specified.n_ng,
        ok_above=int((ok > threshold).sum()),
        ng_below=sum(score <= threshold for score in ng_scores),
        separable=specified.separable,
        n_ok_needed=max(0, ok_scores_needed(false_alarm_rate) - len(peaks)),
        n_rejected=int((by_peak | (own > threshold)).sum()),
        missed_ng=tuple(
            score
            for i, score in enumerate(ng_scores)
            if score <= threshold and not (len(ng_peaks) and np.float32(ng_peaks[i]) >= np.float32(level))
        ),
    )
