"""Admission by queued work: a request that cannot be served in time is refused before its body is read."""

import math
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager

from gateway.errors import OverloadedError, ShuttingDownError
from gateway.monitoring import metrics
from gateway.store.roi_key import RoiKey

_WINDOW = 32
"""Images over which the service time is measured: a plain mean at first, then an exponential one. The window is long
enough that one stall of the machine does not cause refusals."""
_LONGEST_RETRY_S = 120


class Admission:
    """Admits one kind of work: counts it, and measures how long one piece takes.

    A piece of work is one image to inspect, or one fit, and holds one place. The service time is the time between the
    ends of two pieces while there is work, so it is valid for any number of pieces that run in parallel.
    """

    def __init__(
        self,
        kind: str,
        limit: int,
        *,
        max_wait_s: float = math.inf,
        max_bytes: float = math.inf,
        max_memory: float = math.inf,
        max_per_roi: float = math.inf,
    ) -> None:
        """Start without work.

        `max_wait_s` applies only after `_WINDOW` pieces, because the first ones are slow.

        Args:
            kind: verb for messages, as in "requests to inspect".
            limit: number of places.
            max_wait_s: longest expected time of the admitted work. Above it, no more work is admitted.
            max_bytes: limit of the bodies of all admitted requests together, as declared or as received.
            max_memory: limit of the memory that the running work takes together, in bytes.
            max_per_roi: limit of the running work of one ROI, so that the ROI does not take all places.
        """
        self.kind = kind
        self._limit = limit
        self._max_wait_s = max_wait_s
        self._max_bytes = max_bytes
        self._max_memory = max_memory
        self._max_per_roi = max_per_roi
        self._bytes = 0
        self._memory = 0
        self._of_roi: Counter[RoiKey] = Counter()
        self._working = 0
        self._last_end = 0.0
        self._closed_for_s: int | None = None
        self.in_flight = 0
        self._measured = 0
        self.service_s = 0.0

    @property
    def wait_s(self) -> float:
        """Expected time until all admitted work has ended."""
        return self.in_flight * self.service_s

    @property
    def is_closed(self) -> bool:
        """Whether all work is refused."""
        return self._closed_for_s is not None

    def close(self, retry_after_s: int) -> None:
        """Refuse all work, because the process is about to end."""
        self._closed_for_s = retry_after_s

    @contextmanager
    def reserve(self, n_bytes: int = 0) -> Iterator["Place"]:
        """Hold one place for a request whose body has not arrived yet. A request without others is never refused.

        Args:
            n_bytes: declared length of the body.

        Raises:
            OverloadedError: too much work is queued. Retry-After is the expected time until it has ended.
            ShuttingDownError: the admission is closed.
        """
        if self._closed_for_s is not None:
            raise ShuttingDownError("this gateway is shutting down", retry_after_s=self._closed_for_s)
        with self._counted(), self._held(n_bytes) as place:
            yield place

    @contextmanager
    def _counted(self) -> Iterator[None]:
        """Count a request once, as refused also if a later stage refuses it, such as a full queue of the engine."""
        try:
            yield
        except BaseException as error:
            # FastAPI wraps errors that are raised while it reads a body.
            refused = isinstance(error, OverloadedError) or isinstance(error.__cause__, OverloadedError)
            (metrics.SHED if refused else metrics.ADMITTED).labels(self.kind).inc()
            raise
        metrics.ADMITTED.labels(self.kind).inc()

    @contextmanager
    def _held(self, n_bytes: int) -> Iterator["Place"]:
        if self.in_flight:
            self._require(self.in_flight < self._limit, f"the limit is {self._limit}")
            self._require(
                self._measured < _WINDOW or self.wait_s <= self._max_wait_s,
                f"they will take {self.wait_s:.1f} s; the limit is {self._max_wait_s:g} s",
            )
            self._require_bytes(n_bytes)
        place = Place(self, n_bytes)
        self._hold(1)
        self._bytes += n_bytes
        try:
            yield place
        finally:
            self._hold(-place.n)
            self._bytes -= place.n_bytes

    def _hold(self, n: int) -> None:
        self.in_flight += n
        metrics.IN_FLIGHT.labels(self.kind).inc(n)

    @contextmanager
    def _work(self, place: "Place", n: int, memory: int, key: RoiKey | None) -> Iterator[None]:
        others = self.in_flight - place.n
        self._require(not others or others + n <= self._limit, f"{n} more exceed the limit of {self._limit}")
        self._require(
            not self._memory or self._memory + memory <= self._max_memory,
            f"they take {self._memory / 1e9:.1f} GB of memory, and {memory / 1e9:.1f} GB more exceed the limit of "
            f"{self._max_memory / 1e9:.1f} GB",
        )
        self._require(
            key is None or self._of_roi[key] < self._max_per_roi,
            f"{self._max_per_roi:g} of them are of {key}: the limit",
        )
        self._memory += memory
        self._of_roi.update(() if key is None else (key,))
        try:
            with self._timed(place, n):
                yield
        finally:
            self._memory -= memory
            self._of_roi -= Counter(() if key is None else (key,))

    @contextmanager
    def _timed(self, place: "Place", n: int) -> Iterator[None]:
        self._hold(n - place.n)
        place.n = n
        if not self._working:
            self._last_end = time.monotonic()
        self._working += n
        try:
            yield
        except BaseException:
            self._working -= n  # not measured: failed work takes another time
            raise
        self._working -= n
        self._measure(n)

    def _measure(self, n: int) -> None:
        now = time.monotonic()
        each = (now - self._last_end) / n
        self._last_end = now
        self._measured += n
        weight = n / self._measured if self._measured <= _WINDOW else 1 - (1 - 1 / _WINDOW) ** n
        self.service_s += weight * (each - self.service_s)

    def _receive(self, place: "Place", more: int) -> None:
        if self._bytes > place.n_bytes:
            self._require_bytes(more)
        place.n_bytes += more
        self._bytes += more

    def _require_bytes(self, more: int) -> None:
        self._require(
            self._bytes + more <= self._max_bytes,
            f"their bodies have {self._bytes} bytes, and {more} more exceed the limit of {self._max_bytes:g}",
        )

    def _require(self, fits: bool, why: str) -> None:
        if not fits:
            raise OverloadedError(
                f"{self.in_flight} requests to {self.kind} are running or waiting; {why}",
                retry_after_s=min(_LONGEST_RETRY_S, max(1, math.ceil(self.wait_s))),
            )


class Place:
    """The share of an admission that one request holds."""

    def __init__(self, admission: Admission, n_bytes: int) -> None:
        self._admission = admission
        self.n = 1
        self.n_bytes = n_bytes

    def receive(self, n_bytes: int) -> None:
        """Count the received bytes of the body if they exceed the declared length.

        Args:
            n_bytes: bytes received so far.

        Raises:
            OverloadedError: the bodies of all requests together are too large.
        """
        if n_bytes > self.n_bytes:
            self._admission._receive(self, n_bytes - self.n_bytes)

    @contextmanager
    def work(self, n: int = 1, *, memory: int = 0, key: RoiKey | None = None) -> Iterator[None]:
        """Run the work of the request, whose body has arrived, in the ``with`` block.

        Args:
            n: number of images to inspect. Their places are held until the request ends.
            memory: memory that the work takes, in bytes. Work that is alone is never refused.
            key: the ROI that the work changes, where the work of one ROI is limited.

        Raises:
            OverloadedError: there are not enough free places, or the memory is taken.
        """
        with self._admission._work(self, n, memory, key):
            yield
