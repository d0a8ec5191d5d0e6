"""Admission by queued work: what cannot be done in time is refused at once, before its body is read."""

import math
import time
from collections.abc import Iterator
from contextlib import contextmanager

from gateway.errors import OverloadedError, ShuttingDownError
from gateway.monitoring import metrics

_WINDOW = 32
"""Images over which the service time is measured: their mean at first, then one that forgets. So many that one stall of
the machine does not turn a line away."""
_LONGEST_RETRY_S = 120


class Admission:
    """Counts the work of one kind that is admitted, and measures how long one piece of it takes.

    A place is one image to inspect, or one fit. The service time is the time between the ends of two pieces while there
    is work; so it holds for as many as are worked on at once, whatever their number.
    """

    def __init__(self, kind: str, limit: int, *, max_wait_s: float = math.inf, max_bytes: float = math.inf) -> None:
        """Start empty. Until enough is measured, only the limits on places and bytes hold: a cold start is slow.

        Args:
            kind: verb for messages, as in "requests to inspect".
            limit: places.
            max_wait_s: how long the work admitted before may take for more to be admitted.
            max_bytes: bodies of all that is admitted, together: as declared, or as they come in.
        """
        self.kind = kind
        self._limit = limit
        self._max_wait_s = max_wait_s
        self._max_bytes = max_bytes
        self._bytes = 0
        self._working = 0
        self._last_end = 0.0
        self._closed_for_s: int | None = None
        self.in_flight = 0
        self._measured = 0
        self.service_s = 0.0

    @property
    def wait_s(self) -> float:
        """How long the work that is admitted will take."""
        return self.in_flight * self.service_s

    @property
    def is_closed(self) -> bool:
        """Whether nothing is admitted any more."""
        return self._closed_for_s is not None

    def close(self, retry_after_s: int) -> None:
        """Admit nothing any more: the process is about to end."""
        self._closed_for_s = retry_after_s

    @contextmanager
    def reserve(self, n_bytes: int = 0) -> Iterator["Place"]:
        """Hold one place for a request whose body is still to come. One that is alone is never refused.

        Args:
            n_bytes: declared length of the body.

        Raises:
            OverloadedError: too much is queued; says when that will be done, at the pace measured lately.
            ShuttingDownError: nothing is admitted any more.
        """
        if self._closed_for_s is not None:
            raise ShuttingDownError("this gateway is shutting down", retry_after_s=self._closed_for_s)
        with self._counted(), self._held(n_bytes) as place:
            yield place

    @contextmanager
    def _counted(self) -> Iterator[None]:
        """Count a request once: as refused also where it is what it waits for that refuses, such as a full queue."""
        try:
            yield
        except BaseException as error:
            # FastAPI wraps what is raised while it reads a body.
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
    def _work(self, place: "Place", n: int) -> Iterator[None]:
        others = self.in_flight - place.n
        self._require(not others or others + n <= self._limit, f"with {n} more they are over the limit, {self._limit}")
        self._hold(n - place.n)
        place.n = n
        if not self._working:
            self._last_end = time.monotonic()
        self._working += n
        try:
            yield
        except BaseException:
            self._working -= n  # took less than its share, or more: not counted
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
            f"their bodies have {self._bytes} bytes; with {more} more they are over {self._max_bytes:g}",
        )

    def _require(self, fits: bool, why: str) -> None:
        if not fits:
            raise OverloadedError(
                f"{self.in_flight} requests to {self.kind} are at work or waiting; {why}",
                retry_after_s=min(_LONGEST_RETRY_S, max(1, math.ceil(self.wait_s))),
            )


class Place:
    """What one admitted request holds."""

    def __init__(self, admission: Admission, n_bytes: int) -> None:
        self._admission = admission
        self.n = 1
        self.n_bytes = n_bytes

    def receive(self, n_bytes: int) -> None:
        """Count what has come in of the body so far, where it is more than was declared.

        Raises:
            OverloadedError: with the bodies of others that is too much.
        """
        if n_bytes > self.n_bytes:
            self._admission._receive(self, n_bytes - self.n_bytes)

    @contextmanager
    def work(self, n: int = 1) -> Iterator[None]:
        """Work on the request, now that its body is there.

        Args:
            n: the images to inspect; they are held until the request ends.

        Raises:
            OverloadedError: not as many places are free.
        """
        with self._admission._work(self, n):
            yield
