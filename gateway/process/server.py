"""The server of ``python -m gateway``: uvicorn with a shutdown that answers every admitted request."""

import logging
import os
import signal
import threading
import time
from types import FrameType
from typing import Any

import uvicorn

from gateway.process.lifecycle import Lifecycle

log = logging.getLogger(__name__)

_ANSWERS_S = 2
"""Time for answers to reach their clients after the work has ended."""
_LAST_S = 2.0
"""Time after that for the engine to close and the process to end by itself."""


class GracefulServer(uvicorn.Server):
    """A server that listens during its shutdown, so clients get an answer instead of a refused connection.

    After SIGTERM or SIGINT, `/ready` is 503. After `drain_s`, new work is refused. When the admitted work has ended, or
    after another `grace_s`, the process ends with status 0. A second signal ends it at once.
    """

    def __init__(self, config: uvicorn.Config, lifecycle: Lifecycle, *, drain_s: float, grace_s: float) -> None:
        config.timeout_graceful_shutdown = _ANSWERS_S
        super().__init__(config)
        self._lifecycle = lifecycle
        self._drain_s = drain_s
        self._grace_s = grace_s
        self._signalled_at: float | None = None

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """Handle a signal. Overrides `uvicorn.Server.handle_exit`."""
        if self._signalled_at is not None:
            log.error("second %s: ending at once", signal.Signals(sig).name)
            _exit(128 + sig)
        log.info("%s: shutting down, no longer ready", signal.Signals(sig).name)
        self._signalled_at = time.monotonic()
        self._lifecycle.drain()
        if not self._drain_s:
            self._lifecycle.close()

    async def on_tick(self, counter: int) -> bool:
        """Return whether to stop listening. uvicorn calls this ten times a second."""
        return await super().on_tick(counter) or self._has_ended()

    def _has_ended(self) -> bool:
        if self._signalled_at is None:
            return False
        draining_for_s = time.monotonic() - self._signalled_at
        if draining_for_s < self._drain_s:
            return False
        self._lifecycle.close()
        if not self._lifecycle.has_work:
            return True
        if draining_for_s < self._drain_s + self._grace_s:
            return False
        self._lifecycle.cut()
        return True

    async def shutdown(self, sockets: Any = None) -> None:
        """Close. Threads of cancelled work keep running and end with the process."""
        threading.Thread(target=_end_after_deadline, name="end", daemon=True).start()
        await super().shutdown(sockets)
        if self._lifecycle.is_cut:
            _exit(0)


def _end_after_deadline() -> None:
    """End the process even if a thread cannot be stopped."""
    time.sleep(_ANSWERS_S + _LAST_S)
    log.error("a thread did not end; ending the process")
    _exit(0)


def _exit(status: int) -> None:
    logging.shutdown()
    os._exit(status)
