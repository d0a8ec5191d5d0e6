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
    def admit(self) -> Iterator[None]:
        """Hold a place while a request is worked on.

        Raises:
            OverloadedError: none is free; says when one will be, going by what requests took lately.
        """
        if self.in_flight >= self._limit:
            retry_after_s = min(_LONGEST_RETRY_S, max(1, math.ceil(self._service_s)))
            raise OverloadedError(
                f"{self.in_flight} requests to {self._kind} are at work or waiting; the limit is {self._limit}",
                retry_after_s=retry_after_s,
            )
        self.in_flight += 1
        start = time.monotonic()
        try:
            yield
        finally:
            self.in_flight -= 1
            self._service_s += _SMOOTHING * (time.monotonic() - start - self._service_s)
