"""Shutdown of a process: readiness ends first, then admission, then the remaining work is cancelled."""

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
    """The stages of a process: serving, draining, closed, cut. Each is reached once, in this order."""

    def __init__(self, admissions: Sequence[Admission]) -> None:
        self._admissions = admissions
        self._is_cut = False
        self._waiting: set[asyncio.Future[None]] = set()
        """What `until_cut` waits for: each is set when its work has ended, and all by `cut`."""
        self.is_draining = False
        """Whether `/ready` is 503. Work is admitted until `close`."""

    @property
    def reason(self) -> str | None:
        """Why the process is not ready, or None."""
        return "shutting down" if self.is_draining else None

    @property
    def is_cut(self) -> bool:
        """Whether the remaining work was cancelled."""
        return self._is_cut

    @property
    def has_work(self) -> bool:
        """Whether admitted work has not ended yet."""
        return any(admission.in_flight for admission in self._admissions)

    def drain(self) -> None:
        """End readiness, so that load balancers use other gateways. Safe in a signal handler."""
        self.is_draining = True

    def close(self) -> None:
        """Refuse new work. Safe in a signal handler."""
        self.is_draining = True
        for admission in self._admissions:
            admission.close(_RETRY_AFTER_S)

    def cut(self) -> None:
        """Cancel the remaining work. Its clients get an error at once."""
        self.close()
        left = [f"{a.in_flight} to {a.kind}" for a in self._admissions if a.in_flight]
        log.error("cancelled at the deadline of the shutdown: %s", ", ".join(left) or "nothing")
        self._is_cut = True
        for ended in self._waiting:
            _set(ended)

    async def until_cut(self, work: Coroutine[Any, Any, _T]) -> _T:
        """Await `work` until it ends or `cut` is called. A thread that it waits for keeps running.

        Raises:
            ShuttingDownError: `cut` was called.
        """
        task = asyncio.ensure_future(work)
        ended = asyncio.get_running_loop().create_future()
        task.add_done_callback(lambda _: _set(ended))
        self._waiting.add(ended)
        if self._is_cut:
            _set(ended)
        try:
            await ended
            if task.done():
                return task.result()
            raise ShuttingDownError("this gateway ended before the request was done", retry_after_s=_RETRY_AFTER_S)
        finally:
            self._waiting.discard(ended)
            if not task.done():
                task.cancel()
                if not self.is_cut:
                    with suppress(asyncio.CancelledError, Exception):
                        await task


def _set(ended: "asyncio.Future[None]") -> None:
    if not ended.done():
        ended.set_result(None)
