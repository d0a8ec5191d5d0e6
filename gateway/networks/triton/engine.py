"""The token engine on a Triton Inference Server, by gRPC: several gateways share one GPU."""

import asyncio
import logging
import time
from collections.abc import Coroutine
from contextlib import suppress
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gateway.errors import GatewayError
from gateway.networks.model_description import ModelDescription
from gateway.networks.protocol import EngineStatus, Priority
from gateway.networks.triton.call import TritonCall, deadline, timeout_s
from gateway.networks.triton.channel import connect
from gateway.networks.triton.server_model import ServedModel, ServerModel, changed
from gateway.networks.triton.tensor_memory import TensorMemory
from gateway.settings import Settings

log = logging.getLogger(__name__)


class TritonEngine:
    """Calls Triton, reconnects when the server returns, and never mixes the tokens of two models."""

    def __init__(self, settings: Settings, name: str | None = None) -> None:
        """Connect to nothing yet.

        Args:
            settings: where Triton is, deadlines.
            name: of the model on the server, any version of which is accepted. None means the token model of the
                settings, which must be in this gateway's repository where that holds any.
        """
        self._settings = settings
        name_there = settings.model_name if name is None else name
        self._server = ServerModel(
            settings, name_there, must_be_own=name is None, on_another=lambda: self._memory.retire()
        )
        self._memory = TensorMemory(settings, self._server)
        self._call = TritonCall(settings, name_there, self._server, self._memory)
        self._fits_in_flight = asyncio.Semaphore(settings.triton_fit_in_flight)

    @property
    def model(self) -> ModelDescription:
        """See `TokenEngine.model`: the model served now or, while the server is away, the model served last."""
        return self._server.model

    @property
    def device(self) -> str:
        """See `TokenEngine.device`."""
        known = self._server.served or self._server.last
        return known.device if known else "cpu"

    @property
    def status(self) -> EngineStatus:
        """See `TokenEngine.status`."""
        server = self._server
        known = server.served or server.last
        runtime = f"triton-{known.backend}" if known else "triton"
        return EngineStatus(server.served is not None, self.device, runtime, server.reason)

    async def start(self) -> None:
        """Open the channel and ask once; then keep watching for the server, whether or not it answered."""
        try:
            self._server.client = connect(self._settings)
        except (ImportError, OSError, ValueError) as error:
            self._server.reason = f"{error}; install the triton extra, and check the settings GATEWAY_TRITON_…"
            log.error("triton engine: %s", self._server.reason)
            return
        with suppress(GatewayError):
            await self._server.ask()
        self._server.watch()

    async def ready(self) -> EngineStatus:
        """See `TokenEngine.ready`: asks the server."""
        with suppress(GatewayError):
            await self._server.ask()
        return self.status

    async def close(self) -> None:
        """See `TokenEngine.close`."""
        await self._server.close()
        await self._memory.close()
        if self._server.client is not None:
            await self._server.client.close()

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
        served = self._server.served
        if served is None or not self._server.is_current(served):
            async with deadline(self._settings, priority):
                served = await self._server.ask()
        if not served.model.same_model_as(model):
            raise changed(model, served.model)
        parts = [images[start : start + served.max_batch] for start in range(0, len(images), served.max_batch)]
        if len(parts) == 1:
            return await self._one_batch(parts[0], served, priority, ends)
        return np.concatenate(await _all_or_none([self._one_batch(part, served, priority, ends) for part in parts]))

    async def _one_batch(
        self, images: NDArray[np.uint8], served: ServedModel, priority: Priority, ends: float
    ) -> NDArray[np.float32]:
        if priority is Priority.INSPECT:
            return await self._call.tokens(images, served, priority, ends)
        async with self._fits_in_flight, deadline(self._settings, priority):
            ends = time.monotonic() + timeout_s(self._settings, priority)
            return await self._call.tokens(images, served, priority, ends)


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
