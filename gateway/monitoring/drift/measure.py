"""Measure drift: compare recent inspections with the OK images of the fit."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, get_args

import numpy as np
import scipy
from numpy.typing import NDArray

from gateway.monitoring.drift.recent import Recent
from gateway.store.manifest import Manifest
from postprocess.binomial import lower_limit

MIN_SAMPLES = 50
"""Smallest number of inspections that drift is measured with."""
_P_VALUE = 1e-4
"""Largest p-value of an alarm by score or rejects."""
_KS_UP, _KS_DOWN = 0.3, 0.7
"""Smallest statistics of an alarm. Leave-one-out scores are higher than scores of unseen images, because the bank lacks
the tokens of the image itself. An unchanged stream therefore lies below them, and only a large fall is an alarm."""
_SHIFT, _SHIFT_P = 0.4, 1e-3
"""Smallest shift and largest p-value of an alarm by brightness or sharpness. The p-value is Student's, because the
standard deviation of few OK images is itself an estimate."""
_LEAST_SPREAD = 0.01
"""Smallest assumed standard deviation of brightness and sharpness, as a share of their mean."""
_REJECTS = 0.05
"""Share of rejected images up to which there is no alarm, if the calibration expects no more."""
_EPSILON = 1e-4
"""Added to sharpness before its logarithm is taken."""

Signal = Literal["score", "rejects", "brightness", "sharpness"]
SIGNALS: tuple[Signal, ...] = get_args(Signal)


@dataclass(frozen=True, slots=True)
class Shift:
    """Mean of recent images, compared with the mean of the OK images."""

    mean: float
    ok_mean: float
    shift: float
    """Difference of the means, in standard deviations of the OK images."""
    z: float
    """Difference of the means, in standard errors of that difference."""


@dataclass(frozen=True, slots=True)
class Drift:
    """Drift of one window. A value that needs more samples is None, and `reason` says so."""

    n: int
    n_ok: int
    n_reference: int
    ks: float | None = None
    """Two-sample Kolmogorov–Smirnov statistic: recent scores judged OK, and the leave-one-out scores of the bank."""
    ks_up: float | None = None
    """One-sided statistic: recent scores are higher."""
    ks_down: float | None = None
    """One-sided statistic: recent scores are lower."""
    p_value: float | None = None
    """P-value of the two-sided statistic."""
    above_threshold: float | None = None
    """Share of recent inspections whose score is above the threshold."""
    rejected: float | None = None
    """Share of recent inspections judged NG, by score or by region."""
    brightness: Shift | None = None
    sharpness: Shift | None = None
    """Shift of the logarithm of the sharpness."""
    alarms: tuple[Signal, ...] = ()
    reason: str | None = None


@dataclass(frozen=True, slots=True)
class _Scores:
    ks: float
    up: float
    down: float
    p_value: float
    is_alarm: bool


def measure(recent: Recent, manifest: Manifest, expected_rejects: float | None) -> Drift:
    """Compare recent inspections with the OK images of a version.

    Scores are compared for images judged OK. Brightness and sharpness are compared for all images, because a change of
    light that makes every part NG must be found as well.

    Args:
        recent: inspections with the version.
        manifest: manifest of the version.
        expected_rejects: upper limit of the share of OK images that the calibration expects to reject.
    """
    reference = np.asarray(manifest.ok_scores, np.float64)
    n, n_ok = len(recent), int(recent.judged_ok.sum())
    if n < MIN_SAMPLES:
        reason = f"{n} inspections with this version; drift needs {MIN_SAMPLES}"
        return Drift(n, n_ok, len(reference), reason=reason)
    alarms: list[Signal] = []
    reasons = []
    missing = _missing_scores(recent, len(reference), n_ok)
    scores = None if missing else _compare_scores(recent.score[recent.comparable], reference)
    if missing:
        reasons.append(missing)
    elif scores is not None and scores.is_alarm:
        alarms.append("score")
    above = rejected = None
    calibrated = ~np.isnan(recent.threshold)
    if calibrated.sum() >= MIN_SAMPLES:
        above = float((recent.score[calibrated] > recent.threshold[calibrated]).mean())
        ng = ~recent.judged_ok[calibrated]
        rejected = float(ng.mean())
        limit = lower_limit(int(ng.sum()), len(ng), 1 - _P_VALUE)
        if limit > max(_REJECTS, expected_rejects or 0.0):
            alarms.append("rejects")
    known = [i for i in manifest.images if i.brightness is not None and i.sharpness is not None]
    of_ok = [i.brightness or 0.0 for i in known]
    shifts: dict[Signal, Shift | None] = {
        "brightness": _shift(recent.brightness, of_ok, _LEAST_SPREAD * max(1.0, float(np.mean(of_ok or [0.0])))),
        "sharpness": _shift(
            np.log(recent.sharpness + _EPSILON),
            [math.log((i.sharpness or 0.0) + _EPSILON) for i in known],
            _LEAST_SPREAD,  # a difference of logarithms is already relative
        ),
    }
    if len(known) < 2:
        reasons.append("the OK images were learned by a release that did not store brightness and sharpness")
    alarms += [name for name, shift in shifts.items() if shift is not None and _is_alarm(shift, len(known))]
    return Drift(
        n,
        n_ok,
        len(reference),
        ks=None if scores is None else scores.ks,
        ks_up=None if scores is None else scores.up,
        ks_down=None if scores is None else scores.down,
        p_value=None if scores is None else scores.p_value,
        above_threshold=above,
        rejected=rejected,
        brightness=shifts["brightness"],
        sharpness=shifts["sharpness"],
        alarms=tuple(alarms),
        reason="; ".join(reasons) or None,
    )


def _missing_scores(recent: Recent, n_reference: int, n_ok: int) -> str | None:
    """Return why scores are not comparable, or None."""
    n_comparable = int(recent.comparable.sum())
    if n_reference < 2:
        return "the memory bank has no leave-one-out scores to compare with"
    if n_ok < MIN_SAMPLES:
        return f"{n_ok} inspections judged OK; comparing scores needs {MIN_SAMPLES}"
    if n_comparable < MIN_SAMPLES:
        return (
            f"{n_comparable} of the {n_ok} inspections judged OK were scored like the OK images, with the same k, "
            f"percentile and use of a shape; comparing scores needs {MIN_SAMPLES}"
        )
    return None


def _compare_scores(scores: NDArray[np.float64], reference: NDArray[np.float64]) -> _Scores:
    """Run the Kolmogorov–Smirnov tests.

    With the alternative "less", the distribution function of `scores` lies below, so the scores are higher.
    """
    both = scipy.stats.ks_2samp(scores, reference, method="asymp")
    up = scipy.stats.ks_2samp(scores, reference, alternative="less", method="asymp")
    down = scipy.stats.ks_2samp(scores, reference, alternative="greater", method="asymp")
    is_alarm = (up.statistic >= _KS_UP and up.pvalue <= _P_VALUE) or (
        down.statistic >= _KS_DOWN and down.pvalue <= _P_VALUE
    )
    return _Scores(
        float(both.statistic), float(up.statistic), float(down.statistic), float(both.pvalue), bool(is_alarm)
    )


def _shift(values: NDArray[np.floating[Any]], reference: Sequence[float], least_spread: float) -> Shift | None:
    """Return the shift of a mean, or None with too few values."""
    if len(reference) < 2 or len(values) < MIN_SAMPLES:
        return None
    spread = max(float(np.std(reference, ddof=1)), least_spread)
    mean, ok_mean = float(np.mean(values)), float(np.mean(reference))
    difference = (mean - ok_mean) / spread
    return Shift(mean, ok_mean, difference, difference / math.sqrt(1 / len(values) + 1 / len(reference)))


def _is_alarm(shift: Shift, n_ok_images: int) -> bool:
    return abs(shift.shift) >= _SHIFT and bool(2 * scipy.stats.t.sf(abs(shift.z), n_ok_images - 1) <= _SHIFT_P)
