"""Admission by work at hand: what cannot be done in time is refused at once."""

import math
import time
from collections.abc import Iterator
from contextlib import contextmanager

from gateway.errors import OverloadedError

_SMOOTHING = 0.1
_LONGEST_RETRY_S = 120


class Admission:
    """Counts the requests of one kind that are at work or waiting."""

    def __init__(self, kind: str, limit: int) -> None:
        self._kind = kind
        self._limit = limit
        self._service_s = 1.0
        self.in_flight = 0

    @contextmanager
    def admit(self, places: int = 1) -> Iterator[None]:
        """Hold places while a request is worked on: one for each image to inspect.

        Raises:
            OverloadedError: not as many are free; says when they will be, going by what requests took lately.
        """
        if self.in_flight and self.in_flight + places > self._limit:
            retry_after_s = min(_LONGEST_RETRY_S, max(1, math.ceil(self._service_s)))
            raise OverloadedError(
                f"{self.in_flight} requests to {self._kind} are at work or waiting; the limit is {self._limit}",
                retry_after_s=retry_after_s,
            )
        self.in_flight += places
        start = time.monotonic()
        try:
            yield
        finally:
            self.in_flight -= places
            self._service_s += _SMOOTHING * (time.monotonic() - start - self._service_s)
