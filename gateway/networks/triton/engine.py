"""The token engine on Triton Inference Servers, by gRPC: several gateways share one GPU, or several."""

import asyncio
import logging
import time
from collections.abc import Coroutine
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gateway.networks.model_description import ModelDescription
from gateway.networks.protocol import EngineStatus, Priority
from gateway.networks.triton.call import CallFailedError, deadline, timeout_s
from gateway.networks.triton.servers import Servers
from gateway.settings import Settings
from gateway.turns import Turns

log = logging.getLogger(__name__)

_RETRY_BACKOFF_S = 0.1
_BATCHES_IN_FLIGHT = 2
"""Batches of inspections that each server has at once: one that it computes, and one that waits."""
_LEAST_IN_FLIGHT = 4
"""Images that each server has at once at least, where its batches are small."""

ENGINE_BYTES = 16 * 2**20
"""Estimated memory of one engine: mostly the shared memory of the batches in flight. 256 engines fit into 4 GiB, and
watching them takes about a tenth of a core."""


class TritonEngine:
    """Calls Triton, reconnects when a server returns, and never mixes the tokens of two models."""

    def __init__(self, settings: Settings, name: str | None = None) -> None:
        """Connect to nothing yet.

        Args:
            settings: where Triton is, deadlines.
            name: of the model on the server, any version of which is accepted. None means the token model of the
                settings, which must be in this gateway's repository where that holds any.
        """
        self._settings = settings
        self._servers = Servers(settings, settings.model_name if name is None else name, must_be_own=name is None)
        self._not_started: str | None = None
        self._fits_in_flight = asyncio.Semaphore(settings.triton_fit_in_flight)
        # Triton serves what it has in the order of arrival. What waits here goes to each line in turn.
        self._inspections = Turns(_LEAST_IN_FLIGHT)

    @property
    def model(self) -> ModelDescription:
        """See `TokenEngine.model`: the model served now or, while the server is away, the model served last."""
        return self._servers.model

    @property
    def device(self) -> str:
        """See `TokenEngine.device`."""
        known = self._servers.known
        return known.device if known else "cpu"

    @property
    def status(self) -> EngineStatus:
        """See `TokenEngine.status`."""
        servers, known = self._servers, self._servers.known
        runtime = f"triton-{known.backend}" if known else "triton"
        return EngineStatus(servers.is_ready, self.device, runtime, self._not_started or servers.reason)

    async def start(self) -> None:
        """Open the channels and ask once; then keep watching for the servers, whether or not they answered."""
        try:
            await self._servers.start()
        except (ImportError, OSError, ValueError) as error:
            remedy = "; install the triton extra" if isinstance(error, ImportError) else ""
            self._not_started = f"{error}{remedy}"
            log.error("triton engine: %s", self._not_started)

    async def ready(self) -> EngineStatus:
        """See `TokenEngine.ready`: asks the servers until one has answered."""
        await self._servers.ask()
        return self.status

    async def close(self) -> None:
        """See `TokenEngine.close`."""
        await self._servers.close()

    async def tokens(
        self, images: NDArray[np.uint8], *, model: ModelDescription, priority: Priority = Priority.INSPECT
    ) -> NDArray[np.float32]:
        """See `TokenEngine.tokens`. Splits images into the server's batches; a cancelled caller cancels them there."""
        ends = time.monotonic() + timeout_s(self._settings, priority)
        if priority is Priority.INSPECT:
            async with deadline(self._settings, priority):
                return await self._in_batches(images, model, priority, ends)
        return await self._in_batches(images, model, priority, ends)

    async def _in_batches(
        self, images: NDArray[np.uint8], model: ModelDescription, priority: Priority, ends: float
    ) -> NDArray[np.float32]:
        async with deadline(self._settings, priority):
            size = await self._servers.find(model)
        in_flight = max(_LEAST_IN_FLIGHT, _BATCHES_IN_FLIGHT * size)
        self._inspections.places = in_flight * self._servers.number_of(model)
        parts = [images[start : start + size] for start in range(0, len(images), size)]
        if len(parts) == 1:
            return await self._one_batch(parts[0], model, priority, ends)
        return np.concatenate(await _all_or_none([self._one_batch(part, model, priority, ends) for part in parts]))

    async def _one_batch(
        self, images: NDArray[np.uint8], model: ModelDescription, priority: Priority, ends: float
    ) -> NDArray[np.float32]:
        if priority is Priority.INSPECT:
            async with self._inspections.turn(len(images)):
                return await self._call(images, model, priority, ends)
        async with self._fits_in_flight, deadline(self._settings, priority):
            ends = time.monotonic() + timeout_s(self._settings, priority)
            return await self._call(images, model, priority, ends)

    async def _call(
        self, images: NDArray[np.uint8], model: ModelDescription, priority: Priority, ends: float
    ) -> NDArray[np.float32]:
        """Send a batch to the server whose turn it is, and to the others if that one fails; then once more to all."""
        failure: CallFailedError | None = None
        for attempt in (1, 2):
            for server, served in self._servers.turns(model, len(images)):
                try:
                    return await server.call.tokens(images, served, priority, ends)
                except CallFailedError as failed:
                    if not failed.elsewhere:
                        raise failed.error from failed
                    failure = failed
            left = ends - time.monotonic()
            if attempt == 2 or (failure is not None and not failure.again) or left < 2 * _RETRY_BACKOFF_S:
                break
            await asyncio.sleep(_RETRY_BACKOFF_S)
            await self._servers.find(model)
        if failure is None:
            raise self._servers.unavailable()
        raise failure.error from failure


async def _all_or_none(calls: list[Coroutine[Any, Any, NDArray[np.float32]]]) -> list[NDArray[np.float32]]:
    """Run the calls together. When one fails or the caller is cancelled, cancel the others."""
    tasks = [asyncio.ensure_future(call) for call in calls]
    try:
        return await asyncio.gather(*tasks)
    except BaseException:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        raise
