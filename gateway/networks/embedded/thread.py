"""The one thread that runs the networks of this process, so that they do not compete for the cores."""

import asyncio
import logging
import time
from collections.abc import Coroutine
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gateway.errors import EngineTimeoutError, EngineUnavailableError
from gateway.monitoring import metrics
from gateway.networks.embedded.runtimes import Network
from gateway.networks.protocol import Priority
from gateway.settings import Settings
from gateway.turns import Turns

log = logging.getLogger(__name__)

RETRY_AFTER_S = 5
_CLOSE_S = 1.0


class NetworkThread:
    """Runs one batch of one network at a time, on all cores. Inspections go before fits, and lines take turns."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._turns = Turns(1)
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="engine")
        self.calls: set[asyncio.Task[NDArray[np.float32]]] = set()
        """Calls that wait or run, also those whose callers were cancelled."""
        self._run: asyncio.Future[NDArray[np.float32]] | None = None
        self._running_since = 0.0

    async def run(self, network: Network, images: NDArray[np.uint8], priority: Priority) -> NDArray[np.float32]:
        """Run the network in small batches, so that an inspection waits for one batch of a fit at most.

        Args:
            network: compiled.
            images: uint8 [B, S, S, 3], RGB.
            priority: inspections go before fits.

        Returns:
            float32 [B, N, D].

        Raises:
            EngineTimeoutError: the network did not answer before the deadline of an inspection, or of one batch of a
                fit.
            EngineUnavailableError: the network failed.
        """
        step = network.largest_batch
        ends = time.monotonic() + self._timeout_s(priority)
        parts = []
        for start in range(0, len(images), step):
            if priority is Priority.FIT:
                ends = time.monotonic() + self._timeout_s(priority)  # of each batch
            parts.append(await self._by(ends, self._in_turn(network, images[start : start + step], priority), priority))
        return parts[0] if len(parts) == 1 else np.concatenate(parts)

    def _timeout_s(self, priority: Priority) -> float:
        settings = self._settings
        return settings.engine_timeout_s if priority is Priority.INSPECT else settings.engine_fit_timeout_s

    async def _by(
        self, ends: float, call: Coroutine[Any, Any, NDArray[np.float32]], priority: Priority
    ) -> NDArray[np.float32]:
        """Await a call until a deadline. A call that is running then continues, and keeps its turn until it ends."""
        stuck = self.stuck()
        if stuck is not None:
            call.close()
            raise EngineTimeoutError(stuck, retry_after_s=RETRY_AFTER_S)
        task = asyncio.ensure_future(call)
        self.calls.add(task)
        task.add_done_callback(self._forget)
        try:
            await asyncio.wait({task}, timeout=ends - time.monotonic())
            if task.done():
                return task.result()
        finally:
            task.cancel()
        raise EngineTimeoutError(
            self.stuck() or f"the network did not answer within {self._timeout_s(priority):g} s",
            retry_after_s=RETRY_AFTER_S,
        )

    def _forget(self, call: asyncio.Task[NDArray[np.float32]]) -> None:
        self.calls.discard(call)
        if not call.cancelled():
            call.exception()  # retrieved, since its caller may be cancelled

    async def _in_turn(self, network: Network, images: NDArray[np.uint8], priority: Priority) -> NDArray[np.float32]:
        called = time.monotonic()
        with metrics.QUEUED.track_inprogress():
            await self._turns.take(priority=priority)
        try:
            self._running_since = time.monotonic()
            if priority is Priority.INSPECT:
                metrics.STAGE_SECONDS.labels("queue").observe(self._running_since - called)
            self._run = run = asyncio.get_running_loop().run_in_executor(self._thread, network.run, images)
            try:
                # A cancelled caller does not stop the thread. The next call waits until this batch has ended.
                return await asyncio.shield(run)
            except asyncio.CancelledError:
                await asyncio.wait([run])
                raise
            except Exception as error:
                log.exception("embedded engine")
                raise EngineUnavailableError(f"the network failed: {error}", retry_after_s=RETRY_AFTER_S) from error
            finally:
                if run.done():
                    self._run = None
        finally:
            self._turns.give()

    def stuck(self) -> str | None:
        """Return a message when a run takes longer than the deadline, else None. A run cannot be stopped."""
        if self._run is None:
            return None
        running_s = time.monotonic() - self._running_since
        if running_s <= self._settings.engine_timeout_s:
            return None
        return f"the network has not answered for {running_s:.0f} s; restart the gateway if it does not recover"

    async def close(self) -> None:
        """End the thread. A stuck run is abandoned, since it cannot be stopped."""
        if self._run is not None:
            await asyncio.wait([self._run], timeout=_CLOSE_S)
        self._thread.shutdown(wait=self._run is None or self._run.done(), cancel_futures=True)
