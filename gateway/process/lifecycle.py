"""How a process ends: readiness goes down, then no work is admitted, then what is left is cut."""

import asyncio
import logging
from collections.abc import Coroutine, Sequence
from contextlib import suppress
from typing import Any, TypeVar

from gateway.errors import ShuttingDownError
from gateway.process.admission import Admission

log = logging.getLogger(__name__)

_T = TypeVar("_T")

_RETRY_AFTER_S = 5


class Lifecycle:
    """Serving, draining, closed, cut: each stage once, in this order."""

    def __init__(self, admissions: Sequence[Admission]) -> None:
        self._admissions = admissions
        self._cut: asyncio.Event = asyncio.Event()
        self.is_draining = False
        """Readiness is down; work is admitted until `close`."""

    @property
    def reason(self) -> str | None:
        """Why the process is not ready, if it is not."""
        return "shutting down" if self.is_draining else None

    @property
    def is_cut(self) -> bool:
        """Whether work was left undone."""
        return self._cut.is_set()

    @property
    def has_work(self) -> bool:
        """Whether anything admitted has not ended."""
        return any(admission.in_flight for admission in self._admissions)

    def drain(self) -> None:
        """Take readiness down, so that load balancers look elsewhere. Safe in a signal handler."""
        self.is_draining = True

    def close(self) -> None:
        """Admit no more work. Safe in a signal handler."""
        self.is_draining = True
        for admission in self._admissions:
            admission.close(_RETRY_AFTER_S)

    def cut(self) -> None:
        """Give up what is still at work: its clients are told at once."""
        self.close()
        left = [f"{a.in_flight} to {a.kind}" for a in self._admissions if a.in_flight]
        log.error("cut at the deadline of the shutdown: %s", ", ".join(left) or "nothing")
        self._cut.set()

    async def until_cut(self, work: Coroutine[Any, Any, _T]) -> _T:
        """Await `work`, but not beyond `cut`: a thread that it waits for cannot be stopped, and is left behind.

        Raises:
            ShuttingDownError: it was cut.
        """
        task = asyncio.ensure_future(work)
        cut = asyncio.ensure_future(self._cut.wait())
        try:
            await asyncio.wait({task, cut}, return_when=asyncio.FIRST_COMPLETED)
            if task.done():
                return task.result()
            raise ShuttingDownError("this gateway ended before the work did", retry_after_s=_RETRY_AFTER_S)
        finally:
            cut.cancel()
            if not task.done():
                task.cancel()
                if not self.is_cut:
                    with suppress(asyncio.CancelledError, Exception):
                        await task
