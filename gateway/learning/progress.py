"""Progress of fits: for those who ask, and in the log for a fit that takes long."""

import logging
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace

from gateway.monitoring.timing import StageTimes
from gateway.store.roi_key import RoiKey

log = logging.getLogger(__name__)

_EVERY_S = 5.0


@dataclass(frozen=True, slots=True)
class FitProgress:
    """What a fit is doing."""

    stage: str
    """Name of the stage, as in ``Server-Timing``; `wait` before the first one."""
    done: int
    total: int
    """0 where a stage has no parts that are counted."""
    started: float
    """Seconds since 1970."""


class FitTimes(StageTimes):
    """The stage times of one fit, which also say what the fit is doing now. Several threads may use it."""

    def __init__(self) -> None:
        super().__init__()
        self.progress = FitProgress("wait", 0, 0, time.time())

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Add the time of the ``with`` block to a stage. Decoding runs beside the network and is not shown."""
        if name != "decode" and name != self.progress.stage:
            self.progress = replace(self.progress, stage=name, done=0, total=0)
        with super().stage(name):
            yield

    def count(self, stage: str, done: int, total: int) -> None:
        """Say how far a stage is."""
        self.progress = replace(self.progress, stage=stage, done=done, total=total)


class FitsInProgress:
    """The fits that this process runs."""

    def __init__(self) -> None:
        self._running: dict[RoiKey, list[FitTimes]] = {}
        self._lock = threading.Lock()

    @contextmanager
    def begin(self, key: RoiKey) -> Iterator[FitTimes]:
        """Note a fit while it runs."""
        times = FitTimes()
        with self._lock:
            self._running.setdefault(key, []).append(times)
        try:
            yield times
        finally:
            with self._lock:
                self._running[key].remove(times)
                if not self._running[key]:
                    del self._running[key]

    def of(self, key: RoiKey) -> FitProgress | None:
        """Return the progress of the fit of an ROI; of the first one where others wait for it. None without a fit."""
        with self._lock:
            running = self._running.get(key)
            return None if running is None else running[0].progress


class Progress:
    """Counts what is done of a stage, and logs it every few seconds."""

    def __init__(self, message: str, total: int, times: StageTimes | None = None, stage: str = "") -> None:
        """Start at 0.

        Args:
            message: with two places, as in ``"read %d of %d images"``.
            total: number that is complete.
            times: is told the progress; None where nobody asks.
            stage: the stage that is counted.
        """
        self._message = message
        self._total = total
        self._times = times
        self._stage = stage
        self._done = 0
        self._last = time.monotonic()

    def add(self, n: int) -> None:
        """Count n more."""
        self._done = min(self._total, self._done + n)
        if self._times is not None:
            self._times.count(self._stage, self._done, self._total)
        if time.monotonic() - self._last >= _EVERY_S:
            self._last = time.monotonic()
            log.info(self._message, self._done, self._total)
