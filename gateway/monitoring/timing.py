"""Milliseconds by stage, for the ``Server-Timing`` header (W3C Server Timing)."""

import time
from collections.abc import Iterator
from contextlib import contextmanager

from gateway.monitoring import tracing


class StageTimes:
    """Adds up the time spent in named stages of one request."""

    def __init__(self) -> None:
        self._start = time.perf_counter()
        self.ms: dict[str, float] = {}

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Count what runs inside to a stage."""
        start = time.perf_counter()
        try:
            yield
        finally:
            self.add(name, time.perf_counter() - start)

    def add(self, name: str, seconds: float) -> None:
        """Count seconds to a stage that ends now."""
        tracing.stage(name, seconds)
        self.ms[name] = self.ms.get(name, 0.0) + seconds * 1e3

    def add_all(self, other: "StageTimes") -> None:
        """Count the longest of each stage among requests that went together."""
        for name, ms in other.ms.items():
            self.ms[name] = max(self.ms.get(name, 0.0), ms)

    def header(self) -> str:
        """Value of ``Server-Timing``, the total last."""
        total = (time.perf_counter() - self._start) * 1e3
        return ", ".join(f"{name};dur={ms:.2f}" for name, ms in {**self.ms, "total": total}.items())
