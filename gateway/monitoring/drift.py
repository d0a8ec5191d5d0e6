"""Whether what is inspected still looks like what was learned: recent inspections against the OK images of the fit.

Recent inspections of an ROI are kept in a ring of fixed size, one file an ROI on this host, so that a restart forgets
nothing and several worker processes see the same. A record belongs to a version of the memory bank: after a fit the
window starts anew.
"""

import fcntl
import hashlib
import logging
import math
import os
import time
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import scipy
from numpy.typing import NDArray

from gateway.images.appearance import Look
from gateway.store.manifest import Manifest
from gateway.store.roi_key import RoiKey
from postprocess.verdict import Verdict

log = logging.getLogger(__name__)

_RECORD = np.dtype(
    [
        ("crc", "<u4"),
        ("verdict", "<u4"),
        ("time", "<f8"),
        ("bank", "V8"),
        ("score", "<f4"),
        ("threshold", "<f4"),
        ("brightness", "<f4"),
        ("sharpness", "<f4"),
    ]
)
_HEADER = np.dtype([("magic", "S8"), ("capacity", "<u8"), ("written", "<u8")])
_MAGIC = b"drift-01"
_MOST_WRITTEN = 1 << 48
"""Nobody counts so far: the header is damaged."""
_VERDICTS: tuple[Verdict, ...] = ("uncalibrated", "ok", "ng")
_SCORED_OTHERWISE = 0x100
"""Beside the verdict: scored with another k, percentile or shape than the OK images."""

MIN_SAMPLES = 50
"""Fewer say nothing: the answer is then that there are too few."""
_P_VALUE = 1e-4
_KS_UP, _KS_DOWN = 0.3, 0.7
"""Leave-one-out scores run higher than those of unseen images (their own tokens leave a hole): a stream that is as ever
lies below them, so a fall must be large to mean anything."""
_SHIFT, _SHIFT_P = 0.4, 1e-3
"""Of brightness and sharpness: standard deviations of the OK images, and how seldom chance does it. After Student:
the spread of few OK images is itself a guess."""
_LEAST_SPREAD = 0.01
"""Of brightness and sharpness, as a share of them: where OK images differ by less, so may those inspected."""
_REJECTS = 0.05
"""A share of images above the threshold up to which nothing is said, where the calibration expects no more."""

Signal = Literal["score", "rejects", "brightness", "sharpness"]


@dataclass(frozen=True, slots=True)
class Recent:
    """The last inspections of an ROI with one version of its bank, oldest first. Arrays are [n]."""

    time: NDArray[np.float64]
    """Seconds since 1970."""
    score: NDArray[np.float32]
    threshold: NDArray[np.float32]
    """NaN before calibration."""
    brightness: NDArray[np.float32]
    sharpness: NDArray[np.float32]
    verdict: NDArray[np.uint32]
    scored_otherwise: NDArray[np.bool_]
    """With another k, percentile or shape than the OK images: such scores do not compare with theirs."""

    def __len__(self) -> int:
        return len(self.score)

    @property
    def judged_ok(self) -> NDArray[np.bool_]:
        """Bool [n]: those judged OK; before calibration, all of them."""
        return np.not_equal(self.verdict, _VERDICTS.index("ng"))

    @property
    def comparable(self) -> NDArray[np.bool_]:
        """Bool [n]: those whose score compares with the leave-one-out scores of the bank."""
        return self.judged_ok & ~self.scored_otherwise


@dataclass(frozen=True, slots=True)
class Shift:
    """A mean against that of the OK images."""

    mean: float
    ok_mean: float
    shift: float
    """In standard deviations of the OK images."""
    z: float
    """In standard deviations of the difference of the two means."""


@dataclass(frozen=True, slots=True)
class Drift:
    """What the window says. What is None cannot be said, and `reason` says why."""

    n: int
    n_ok: int
    n_reference: int
    ks: float | None = None
    """Two-sample Kolmogorov–Smirnov statistic, recent scores judged OK against the leave-one-out scores of the bank."""
    ks_up: float | None = None
    """Its one-sided part: how much more often recent scores lie above."""
    ks_down: float | None = None
    p_value: float | None = None
    """Of the two-sided statistic."""
    above_threshold: float | None = None
    """Share of all recent inspections whose score is above the threshold."""
    brightness: Shift | None = None
    sharpness: Shift | None = None
    """Of its logarithm."""
    alarms: tuple[Signal, ...] = ()
    reason: str | None = None


def measure(recent: Recent, manifest: Manifest, expected_rejects: float | None) -> Drift:
    """Compare recent inspections with the OK images of a version.

    Scores are those of images judged OK; brightness and sharpness those of all, since light that makes every part NG is
    what they are there to tell.

    Args:
        recent: inspections with that version.
        manifest: of the version.
        expected_rejects: upper limit of the share that the calibration expects above the threshold.
    """
    reference = np.asarray(manifest.ok_scores, np.float64)
    ok = recent.judged_ok
    n, n_ok, n_comparable = len(recent), int(ok.sum()), int(recent.comparable.sum())
    if n < MIN_SAMPLES:
        return Drift(n, n_ok, len(reference), reason=f"{n} inspections with this version; {MIN_SAMPLES} are needed")
    alarms: list[Signal] = []
    reasons = []
    ks = up = down = p = None
    if len(reference) < 2:
        reasons.append("the memory bank has no leave-one-out scores to compare with")
    elif n_ok < MIN_SAMPLES:
        reasons.append(f"{n_ok} inspections judged OK; {MIN_SAMPLES} are needed to compare scores")
    elif n_comparable < MIN_SAMPLES:
        reasons.append(
            f"{n_comparable} of the {n_ok} inspections judged OK were scored as the OK images were, with the same k, "
            f"percentile and use of a shape; {MIN_SAMPLES} are needed to compare scores"
        )
    else:
        scores = recent.score[recent.comparable].astype(np.float64)
        both = scipy.stats.ks_2samp(scores, reference, method="asymp")
        ks, p = float(both.statistic), float(both.pvalue)
        up, down = _one_sided(scores, reference)
        if (up >= _KS_UP and _p_value(scores, reference, "less") <= _P_VALUE) or (
            down >= _KS_DOWN and _p_value(scores, reference, "greater") <= _P_VALUE
        ):
            alarms.append("score")
    above = None
    calibrated = ~np.isnan(recent.threshold)
    if calibrated.sum() >= MIN_SAMPLES:
        rejected = recent.score[calibrated] > recent.threshold[calibrated]
        above = float(rejected.mean())
        if _at_least(int(rejected.sum()), len(rejected)) > max(_REJECTS, expected_rejects or 0.0):
            alarms.append("rejects")
    known = [i for i in manifest.images if i.brightness is not None and i.sharpness is not None]
    of_ok = [i.brightness or 0.0 for i in known]
    brightness = _shift(recent.brightness, of_ok, _LEAST_SPREAD * max(1.0, float(np.mean(of_ok or [0.0]))))
    sharpness = _shift(
        np.log(recent.sharpness + _EPSILON),
        [math.log((i.sharpness or 0.0) + _EPSILON) for i in known],
        _LEAST_SPREAD,  # of a logarithm: a share already
    )
    if len(known) < 2:
        reasons.append("the OK images have no brightness to compare with: they were learned before it was kept")
    for name, shift in (("brightness", brightness), ("sharpness", sharpness)):
        if (
            shift is not None
            and abs(shift.shift) >= _SHIFT
            and 2 * scipy.stats.t.sf(abs(shift.z), len(known) - 1) <= _SHIFT_P
        ):
            alarms.append("brightness" if name == "brightness" else "sharpness")
    return Drift(
        n,
        n_ok,
        len(reference),
        ks,
        up,
        down,
        p,
        above,
        brightness,
        sharpness,
        tuple(alarms),
        "; ".join(reasons) or None,
    )


_BINS = 20
_EPSILON = 1e-4


def _at_least(k: int, n: int) -> float:
    """Lower limit of a share after Clopper and Pearson, wrong once in 1/`_P_VALUE`."""
    return 0.0 if k == 0 else float(scipy.stats.beta.ppf(_P_VALUE, k, n - k + 1))


def _one_sided(scores: NDArray[np.float64], reference: NDArray[np.float64]) -> tuple[float, float]:
    """How much more often `scores` lie above and below: the largest differences of the distribution functions."""
    at = np.concatenate([scores, reference])
    own, other = (np.searchsorted(np.sort(sample), at, "right") / len(sample) for sample in (scores, reference))
    return float((other - own).max()), float((own - other).max())


def _p_value(
    scores: NDArray[np.float64], reference: NDArray[np.float64], alternative: Literal["less", "greater"]
) -> float:
    """Of a one-sided statistic; "less": the distribution function of `scores` lies below, so the scores lie above."""
    return float(scipy.stats.ks_2samp(scores, reference, alternative=alternative, method="asymp").pvalue)


def _shift(values: NDArray[np.floating[Any]], reference: Sequence[float], least_spread: float) -> Shift | None:
    if len(reference) < 2 or len(values) < MIN_SAMPLES:
        return None
    spread = max(float(np.std(reference, ddof=1)), least_spread)
    mean, ok_mean = float(np.mean(values, dtype=np.float64)), float(np.mean(reference))
    difference = (mean - ok_mean) / spread
    return Shift(mean, ok_mean, difference, difference / math.sqrt(1 / len(values) + 1 / len(reference)))


@dataclass(frozen=True, slots=True)
class Histogram:
    """Counts in the same bins."""

    edges: NDArray[np.float64]
    """[n + 1]."""
    ok_images: NDArray[np.int64]
    """[n], leave-one-out scores of the fit."""
    recent: NDArray[np.int64]
    """[n], recent inspections judged OK and scored as the OK images were."""


def histogram(recent: Recent, manifest: Manifest) -> Histogram:
    """The two samples that `measure` compares."""
    scores = recent.score[recent.comparable].astype(np.float64)
    both = np.concatenate([manifest.ok_scores, scores])
    edges = np.histogram_bin_edges(both, _BINS) if len(both) else np.linspace(0, 1, _BINS + 1)
    return Histogram(edges, np.histogram(manifest.ok_scores, edges)[0], np.histogram(scores, edges)[0])


class DriftLog:
    """Rings of recent inspections, one file an ROI. Blocks for tens of microseconds."""

    def __init__(self, folder: Path, window: int) -> None:
        self._folder = folder
        self._window = window

    def add(
        self,
        key: RoiKey,
        manifest: Manifest,
        *,
        score: float,
        threshold: float | None,
        verdict: Verdict,
        looks: Look,
        scored_otherwise: bool = False,
    ) -> None:
        """Keep an inspection. What cannot be written is told to the log: statistics stop no line."""
        record = np.zeros(1, _RECORD)
        record["verdict"] = _VERDICTS.index(verdict) | (_SCORED_OTHERWISE if scored_otherwise else 0)
        record["time"] = time.time()
        record["bank"] = np.void(_bank(manifest))
        record["score"] = score
        record["threshold"] = math.nan if threshold is None else threshold
        record["brightness"], record["sharpness"] = looks.brightness, looks.sharpness
        record["crc"] = _crc(record)
        path = self._path(key)
        try:
            self._append(path, record.tobytes())
        except FileNotFoundError:
            try:
                path.parent.mkdir(parents=True, exist_ok=True)
                self._append(path, record.tobytes())
            except OSError as error:
                log.warning("%s: not kept for drift: %s", key, error)
        except OSError as error:
            log.warning("%s: not kept for drift: %s", key, error)

    def recent(self, key: RoiKey, manifest: Manifest) -> Recent:
        """The window of one version; empty where there is none, or the file is not ours."""
        try:
            data = self._path(key).read_bytes()
        except OSError:
            data = b""
        records = _ordered(data)
        whole = records["crc"] == _crcs(records)
        records = records[whole & (records["bank"] == np.void(_bank(manifest)))][-self._window :]
        return Recent(
            **{
                name: np.ascontiguousarray(records[name])
                for name in ("time", "score", "threshold", "brightness", "sharpness")
            },
            verdict=records["verdict"] & ~np.uint32(_SCORED_OTHERWISE),
            scored_otherwise=(records["verdict"] & _SCORED_OTHERWISE) != 0,
        )

    def forget(self, key: RoiKey) -> None:
        """The ROI is gone, and nothing will be compared with these any more."""
        try:
            self._path(key).unlink(missing_ok=True)
        except OSError as error:
            log.warning("%s: what was kept for drift could not be removed: %s", key, error)

    def _path(self, key: RoiKey) -> Path:
        return self._folder / key.role_id / f"{key.roi_id}.ring"

    def _append(self, path: Path, record: bytes) -> None:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX)  # other workers of this host
            header = np.frombuffer(os.pread(descriptor, _HEADER.itemsize, 0).ljust(_HEADER.itemsize, b"\0"), _HEADER)[0]
            written = int(header["written"])
            if header["magic"] != _MAGIC or header["capacity"] != self._window or written > _MOST_WRITTEN:
                os.ftruncate(descriptor, 0)  # new, not ours, damaged, or of another length
                written = 0
            at = _HEADER.itemsize + written % self._window * _RECORD.itemsize
            os.pwrite(descriptor, record, at)
            header = np.array((_MAGIC, self._window, written + 1), _HEADER)
            os.pwrite(descriptor, header.tobytes(), 0)
        finally:
            os.close(descriptor)


def _bank(manifest: Manifest) -> bytes:
    """Eight bytes for what scores depend on: the bank and its spatial weights."""
    return hashlib.sha256(f"{manifest.checksum} {manifest.weights_checksum}".encode()).digest()[:8]


def _ordered(data: bytes) -> NDArray[Any]:
    """Records of a ring, oldest first."""
    if len(data) < _HEADER.itemsize:
        return np.zeros(0, _RECORD)
    header = np.frombuffer(data, _HEADER, 1)[0]
    n = (len(data) - _HEADER.itemsize) // _RECORD.itemsize
    if header["magic"] != _MAGIC:
        return np.zeros(0, _RECORD)
    records = np.frombuffer(data, _RECORD, n, _HEADER.itemsize)
    written, capacity = int(header["written"]), int(header["capacity"])
    if not capacity:
        return records[:0]
    return records[:written] if written <= capacity else np.roll(records, -(written % capacity))


def _crc(record: NDArray[Any]) -> int:
    return zlib.crc32(record.tobytes()[4:])


def _crcs(records: NDArray[Any]) -> NDArray[np.uint32]:
    data, size = records.tobytes(), _RECORD.itemsize
    return np.array([zlib.crc32(data[at + 4 : at + size]) for at in range(0, len(data), size)], np.uint32)
