"""The server of ``python -m gateway``: uvicorn, with an end that loses nothing."""

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
"""For answers to reach their clients, once the work is done."""
_LAST_S = 2.0
"""For the engine to be closed and the process to end by itself, after that."""


class GracefulServer(uvicorn.Server):
    """Goes on listening while it ends, so that whoever asks is told, and not met by a closed port.

    SIGTERM or SIGINT: `/ready` is 503; `drain_s` later no work is admitted; once what was admitted has ended, or
    `grace_s` later, the process ends, with status 0. A second signal ends it at once.
    """

    def __init__(self, config: uvicorn.Config, lifecycle: Lifecycle, *, drain_s: float, grace_s: float) -> None:
        config.timeout_graceful_shutdown = _ANSWERS_S
        super().__init__(config)
        self._lifecycle = lifecycle
        self._drain_s = drain_s
        self._grace_s = grace_s
        self._told_at: float | None = None

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """Take a signal; see `uvicorn.Server.handle_exit`."""
        if self._told_at is not None:
            log.error("%s again: ended at once", signal.Signals(sig).name)
            _exit(128 + sig)
        log.info("%s: not ready any more", signal.Signals(sig).name)
        self._told_at = time.monotonic()
        self._lifecycle.drain()
        if not self._drain_s:
            self._lifecycle.close()

    async def on_tick(self, counter: int) -> bool:
        """Ten times a second: whether to stop listening."""
        return await super().on_tick(counter) or self._has_ended()

    def _has_ended(self) -> bool:
        if self._told_at is None:
            return False
        draining_for_s = time.monotonic() - self._told_at
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
        """Close; the threads of work that was cut are left behind."""
        threading.Thread(target=_end_at_last, name="end", daemon=True).start()
        await super().shutdown(sockets)
        if self._lifecycle.is_cut:
            _exit(0)


def _end_at_last() -> None:
    """End a process that a thread holds up which nobody can stop."""
    time.sleep(_ANSWERS_S + _LAST_S)
    log.error("cut: a thread did not end")
    _exit(0)


def _exit(status: int) -> None:
    logging.shutdown()
    os._exit(status)
