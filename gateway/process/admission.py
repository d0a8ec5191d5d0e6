"""Admission by queued work: a request that cannot be served in time is refused before its body is read.

An admission that lines share refuses the line that floods, not the others.
"""

import math
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager

from gateway.errors import OverloadedError, ShuttingDownError
from gateway.monitoring import metrics
from gateway.store.roi_key import RoiKey
from gateway.turns import current_line

_WINDOW = 32
"""Images over which the service time is measured: a plain mean at first, then an exponential one. The window is long
enough that one stall of the machine does not cause refusals."""
_LONGEST_RETRY_S = 120
_SHARE_OF_FREE = 2
"""A line may hold twice what is free: one that floods two thirds of a limit, two that flood two fifths each."""
_PRESENT_S = 600.0
"""A line that has asked within this time may ask again: the others leave places for it."""


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
        shared_by_lines: bool = False,
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
            shared_by_lines: while several lines ask, none holds more places or bytes than its equal share, or than
                twice what is free, and none is refused for what another has waiting.
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
        self._shared_by_lines = shared_by_lines
        self._of_line: Counter[str] = Counter()
        self._bytes_of_line: Counter[str] = Counter()
        self._asked_at: dict[str, float] = {}
        """The lines that have asked within `_PRESENT_S`, the latest last."""
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

        It is a place of `current_line`.

        Args:
            n_bytes: declared length of the body.

        Raises:
            OverloadedError: too much work is queued. Retry-After is the expected time until it has ended.
            ShuttingDownError: the admission is closed.
        """
        if self._closed_for_s is not None:
            raise ShuttingDownError("this gateway is shutting down", retry_after_s=self._closed_for_s)
        line = current_line.get() if self._shared_by_lines else ""
        with self._counted(), self._held(n_bytes, line) as place:
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
    def _held(self, n_bytes: int, line: str) -> Iterator["Place"]:
        self._note(line)
        if self.in_flight:
            self._require(self.in_flight < self._limit, f"the limit is {self._limit}")
            self._require_share(line, 1)
            wait_s = self._ahead_of(line) * self.service_s
            self._require(
                self._measured < _WINDOW or wait_s <= self._max_wait_s,
                f"they will take {wait_s:.1f} s; the limit is {self._max_wait_s:g} s",
            )
            self._require_bytes(line, n_bytes)
        place = Place(self, n_bytes, line)
        self._hold(line, 1)
        self._hold_bytes(line, n_bytes)
        try:
            yield place
        finally:
            self._hold(line, -place.n)
            self._hold_bytes(line, -place.n_bytes)

    def _hold(self, line: str, n: int) -> None:
        self.in_flight += n
        self._of_line[line] += n
        if not self._of_line[line]:
            del self._of_line[line]
        metrics.IN_FLIGHT.labels(self.kind).inc(n)

    def _hold_bytes(self, line: str, n: int) -> None:
        self._bytes += n
        self._bytes_of_line[line] += n
        if not self._bytes_of_line[line]:
            del self._bytes_of_line[line]

    def _ahead_of(self, line: str) -> int:
        """Return the admitted images that are served before one more of a line: its own, and as many of each other."""
        own = self._of_line[line]
        return own + sum(min(n, own + 1) for other, n in self._of_line.items() if other != line)

    def _note(self, line: str) -> None:
        """Note that a line asks, and forget those that have not asked for long.

        More lines than places are not counted: an equal share is then less than a place, and twice what is free holds.
        """
        now = time.monotonic()
        self._asked_at.pop(line, None)
        self._asked_at[line] = now
        while (
            now - self._asked_at[longest_ago := next(iter(self._asked_at))] > _PRESENT_S
            or len(self._asked_at) > self._limit + 1
        ):
            del self._asked_at[longest_ago]

    def _require_share(self, line: str, more: int, given_back: int = 0) -> None:
        """Refuse a line that would hold more than its equal share of the places, and more than twice what is free.

        This is a dynamic threshold (Choudhury and Hahne, "Dynamic queue length thresholds for shared-memory packet
        switches", 1998), with the equal share as its least: a line within its share is refused only where no place is
        free.
        """
        own, free = self._of_line[line] - given_back, self._limit - self.in_flight + given_back
        self._require(
            own + more <= self._share(free, self._limit),
            f"{own} of them are of this line, and with {more} more it would hold more of the {self._limit} places than "
            "it leaves to other lines",
        )

    def _share(self, free: float, limit: float) -> float:
        """Return how much of a limit a line may hold."""
        n_lines = len(self._asked_at)
        return limit if n_lines == 1 else max(_SHARE_OF_FREE * free, limit / n_lines)

    @contextmanager
    def _work(self, place: "Place", n: int, memory: int, key: RoiKey | None) -> Iterator[None]:
        others = self.in_flight - place.n
        self._require(not others or others + n <= self._limit, f"{n} more exceed the limit of {self._limit}")
        if others:
            self._require_share(place.line, n, place.n)
        self._require(
            not self._memory or self._memory + memory <= self._max_memory,
            f"they take {self._memory / 1e6:.0f} MB of memory, and {memory / 1e6:.0f} MB more exceed the limit of "
            f"{self._max_memory / 1e6:.0f} MB",
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
        self._hold(place.line, n - place.n)
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
            self._require_bytes(place.line, more)
        place.n_bytes += more
        self._hold_bytes(place.line, more)

    def _require_bytes(self, line: str, more: int) -> None:
        self._require(
            self._bytes + more <= self._max_bytes,
            f"their bodies have {self._bytes} bytes, and {more} more exceed the limit of {self._max_bytes:g}",
        )
        own = self._bytes_of_line[line]
        self._require(
            own + more <= self._share(self._max_bytes - self._bytes, self._max_bytes),
            f"the bodies of this line have {own} bytes, and with {more} more they would take more of the limit of "
            f"{self._max_bytes:g} than they leave to other lines",
        )

    def _require(self, fits: bool, why: str) -> None:
        if not fits:
            raise OverloadedError(
                f"{self.in_flight} requests to {self.kind} are running or waiting; {why}",
                retry_after_s=min(_LONGEST_RETRY_S, max(1, math.ceil(self.wait_s))),
            )


class Place:
    """The share of an admission that one request holds."""

    def __init__(self, admission: Admission, n_bytes: int, line: str) -> None:
        self._admission = admission
        self.line = line
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
