"""Time by stage, for the ``Server-Timing`` header (W3C Server Timing)."""

import time
from collections.abc import Iterator
from contextlib import contextmanager

from gateway.monitoring import tracing


class StageTimes:
    """The time that one request spends in named stages."""

    def __init__(self) -> None:
        self._start = time.perf_counter()
        self.ms: dict[str, float] = {}

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Add the time of the ``with`` block to a stage."""
        start = time.perf_counter()
        try:
            yield
        finally:
            self.add(name, time.perf_counter() - start)

    def add(self, name: str, seconds: float) -> None:
        """Add seconds to a stage that ends now."""
        tracing.stage(name, seconds)
        self.ms[name] = self.ms.get(name, 0.0) + seconds * 1e3

    def count(self, stage: str, done: int, total: int) -> None:
        """Say how far a stage is. Here nobody asks; the times of a fit tell."""

    def add_all(self, other: "StageTimes") -> None:
        """Take over the times of a request that ran in the same batch. Each stage keeps its longest time."""
        for name, ms in other.ms.items():
            self.ms[name] = max(self.ms.get(name, 0.0), ms)

    def header(self) -> str:
        """Return the value of ``Server-Timing``, with the total last."""
        total = (time.perf_counter() - self._start) * 1e3
        return ", ".join(f"{name};dur={ms:.2f}" for name, ms in {**self.ms, "total": total}.items())
