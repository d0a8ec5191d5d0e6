"""Drift of every ROI, measured when needed, with a log line when an alarm starts or ends."""

import logging
import threading
from dataclasses import dataclass

from gateway.monitoring.drift.measure import MIN_SAMPLES, Drift, Signal, measure
from gateway.monitoring.drift.recent import RecentInspections
from gateway.store.manifest import Calibration, Manifest
from gateway.store.roi_key import RoiKey

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class _Measured:
    of: tuple[str, str | None, float | None]
    """What the drift was measured for: bank, weights, expected share of rejects."""
    n: int
    """Number of the newest inspection in the window."""
    drift: Drift


class DriftWatch:
    """Measures drift, and measures again only after new inspections. Thread-safe. Its methods block."""

    def __init__(self, recent: RecentInspections, window: int) -> None:
        """Start without any measurement.

        Args:
            recent: the recent inspections.
            window: number of inspections in a full window.
        """
        self._recent = recent
        self._rarely = max(1, window // 20)
        self._lock = threading.Lock()
        self._measured: dict[RoiKey, _Measured] = {}
        self._alarms: dict[RoiKey, tuple[Signal, ...]] = {}

    def of(self, key: RoiKey, manifest: Manifest, calibration: Calibration | None, *, is_exact: bool = True) -> Drift:
        """Return the drift of an ROI.

        Args:
            key: the ROI.
            manifest: manifest of the version in use.
            calibration: calibration in use; None before calibration.
            is_exact: measure after every new inspection. Otherwise only after a twentieth of the window, which
                saves time when there are many ROIs.
        """
        n = self._recent.last_number(key)
        if n == 0:
            return Drift(0, 0, len(manifest.ok_scores), reason=_too_few(self._recent.failure))
        of = (manifest.checksum, manifest.weights_checksum, expected_rejects(calibration))
        with self._lock:
            known = self._measured.get(key)
        if known is not None and known.of == of and 0 <= n - known.n < (1 if is_exact else self._rarely):
            return known.drift
        drift = measure(self._recent.of(key, manifest), manifest, of[2])
        with self._lock:
            self._measured[key] = _Measured(of, n, drift)
            before = self._alarms.get(key, ())
            self._alarms[key] = drift.alarms
        if drift.alarms != before:
            _log_change(key, before, drift.alarms)
        return drift

    def forget(self, key: RoiKey) -> None:
        """Forget a deleted ROI."""
        self._recent.forget(key)
        with self._lock:
            self._measured.pop(key, None)
            self._alarms.pop(key, None)


def expected_rejects(calibration: Calibration | None) -> float | None:
    """Return the upper limit of the share of OK images that a calibration expects to reject, by score or region."""
    if calibration is None:
        return None
    limits = (calibration.expected_false_alarm_interval, calibration.verdict_false_alarm_interval)
    return max((limit[1] for limit in limits if limit is not None), default=None)


def _too_few(failure: str | None) -> str:
    reason = f"0 inspections with this version; drift needs {MIN_SAMPLES}"
    return reason if failure is None else f"{reason}; inspections are not recorded: {failure}"


def _log_change(key: RoiKey, before: tuple[Signal, ...], now: tuple[Signal, ...]) -> None:
    started = [signal for signal in now if signal not in before]
    if started:
        log.warning("%s: drift alarm: %s", key, ", ".join(started))
    ended = [signal for signal in before if signal not in now]
    if ended:
        log.info("%s: drift alarm ended: %s", key, ", ".join(ended))
