"""One request to one Triton server for the tokens of one batch: its encoding, its deadline, and its errors."""

import asyncio
import logging
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import numpy as np
from numpy.typing import NDArray
from structlog.contextvars import get_contextvars

from gateway.errors import EngineTimeoutError, EngineUnavailableError, GatewayError, OverloadedError
from gateway.monitoring import tracing
from gateway.networks.protocol import Priority
from gateway.networks.triton.channel import authorization, is_unreachable
from gateway.networks.triton.server_model import RETRY_AFTER_S, ServedModel, ServerModel, changed
from gateway.networks.triton.tensor_memory import TensorMemory
from gateway.settings import Settings
from gateway.store.arrays import as_float32
from gateway.turns import Turns
from gateway.worker_threads import in_thread

log = logging.getLogger(__name__)

_THREADS = 4
"""Worker threads that convert the tokens of one server, at most."""


def timeout_s(settings: Settings, priority: Priority) -> float:
    """Return the time limit of an inspection, or of one batch of a fit."""
    return settings.triton_timeout_s if priority is Priority.INSPECT else settings.triton_fit_timeout_s


@asynccontextmanager
async def deadline(settings: Settings, priority: Priority) -> AsyncIterator[None]:
    """Cancel the block at the time limit of an inspection, or of one batch of a fit.

    Raises:
        EngineTimeoutError: the block did not end in time.
    """
    try:
        async with asyncio.timeout(timeout_s(settings, priority)):
            yield
    except TimeoutError as error:
        raise _timed_out(settings, priority) from error


class CallFailedError(Exception):
    """One server did not answer a call."""

    def __init__(self, error: GatewayError, *, elsewhere: bool, again: bool = False) -> None:
        """Keep what the caller needs to go on.

        Args:
            error: what clients see where no other server answers.
            elsewhere: another server may answer.
            again: the same server may answer in a moment, since it was unreachable.
        """
        super().__init__(str(error))
        self.error = error
        self.elsewhere = elsewhere
        self.again = again


class TritonCall:
    """Sends batches to one model on one server. It holds no state of its own."""

    def __init__(self, settings: Settings, name: str, server: ServerModel, memory: TensorMemory) -> None:
        self._settings = settings
        self._name = name
        self._server = server
        self._memory = memory
        self._threads = Turns(_THREADS)

    async def tokens(
        self, images: NDArray[np.uint8], served: ServedModel, priority: Priority, ends: float
    ) -> NDArray[np.float32]:
        """Send one request, and check that the model which answered is `served`.

        Args:
            images: uint8 [B, S, S, 3], RGB; B is at most `served.max_batch`.
            served: the model to ask.
            priority: Triton serves inspections before fits.
            ends: the deadline, on the clock of `time.monotonic`.

        Returns:
            float32 [B, N, D], each token of L2 norm 1.

        Raises:
            CallFailedError: the server cannot answer, did not answer in time, its queue is full, or another model
                answered.
        """
        from tritonclient.utils import InferenceServerException

        try:
            tokens, version = await self._attempt(images, served, priority, ends)
        except InferenceServerException as error:
            raise self._failure(error, priority) from error
        except GatewayError as error:
            raise CallFailedError(error, elsewhere=True) from error
        if version != served.version or not self._server.is_current(served):
            try:
                now = await self._server.ask()
            except GatewayError as error:
                raise CallFailedError(error, elsewhere=True) from error
            if now.version != version or not now.model.same_model_as(served.model):
                raise CallFailedError(changed(served.model, now.model), elsewhere=True)
        return tokens

    async def _attempt(
        self, images: NDArray[np.uint8], served: ServedModel, priority: Priority, ends: float
    ) -> tuple[NDArray[np.float32], str]:
        """Return the tokens, and the version that computed them."""
        from tritonclient.grpc import InferInput, InferRequestedOutput

        model = served.model
        shape = (len(images), model.n_tokens, model.dim)
        image = InferInput(model.input_name, list(images.shape), "UINT8")
        output = InferRequestedOutput(model.output_name)
        slot = await self._memory.slot(len(images), served)
        answered = False
        try:
            if slot is None:
                image.set_data_from_numpy(images)
            else:
                slot.write(images)
                image.set_shared_memory(slot.name, images.nbytes)
                output.set_shared_memory(slot.name, int(np.prod(shape)) * served.dtype.itemsize, slot.offset)
            left_s = max(ends - time.monotonic(), 1e-3)
            result = await self._server.client.infer(
                model_name=self._name,
                model_version=served.version,
                inputs=[image],
                outputs=[output],
                request_id=get_contextvars().get("request_id", ""),
                priority=int(priority),
                timeout=int(left_s * 1e6),
                client_timeout=left_s,
                headers={**tracing.headers(), **(authorization(self._settings) or {})},
            )
            answered = True
            found = result.as_numpy(model.output_name) if slot is None else slot.view(shape, served.dtype)
            tokens = await in_thread(_single_precision, found, limiter=self._threads)
        finally:
            # To the pool it came from: the engine may use another by now.
            if slot is not None and answered:
                slot.pool.release(slot)
            elif slot is not None:
                slot.pool.discard(slot)
        return tokens, str(result.get_response().model_version)

    def _failure(self, error: Any, priority: Priority) -> CallFailedError:
        """Return what an error of the Triton client means."""
        status, message = error.status() or "", error.message() or ""
        if "Exceeds maximum queue size" in message:
            full = OverloadedError(f"Triton's queue is full: {message}", retry_after_s=RETRY_AFTER_S)
            return CallFailedError(full, elsewhere=True)
        if "DEADLINE_EXCEEDED" in status or "timeout expired" in message:
            self._server.check_soon()
            return CallFailedError(_timed_out(self._settings, priority), elsewhere=False)
        said = f"{status.removeprefix('StatusCode.')}: {message}"
        if "UNAVAILABLE" in status or "NOT_FOUND" in status:
            self._server.lose(said)
            return CallFailedError(self._server.unavailable(), elsewhere=True, again=is_unreachable(error))
        log.error("triton at %s: %s", self._server.address, said)
        refused = EngineUnavailableError(f"Triton could not answer: {said}", retry_after_s=RETRY_AFTER_S)
        return CallFailedError(refused, elsewhere=False)


def _timed_out(settings: Settings, priority: Priority) -> EngineTimeoutError:
    return EngineTimeoutError(
        f"Triton did not answer within {timeout_s(settings, priority):g} s", retry_after_s=RETRY_AFTER_S
    )


def _single_precision(found: NDArray[np.floating]) -> NDArray[np.float32]:
    """Return a copy of the tokens of a server, float16 or float32 [B, N, D], in float32. Takes a millisecond or more.

    Raises:
        EngineUnavailableError: a value is not finite.
    """
    if found.dtype == np.float16:
        tokens = as_float32(found.reshape(-1, found.shape[-1])).reshape(found.shape)
    else:
        tokens = found.astype(np.float32)
    if not np.isfinite(tokens).all():
        raise EngineUnavailableError(
            "Triton returned values that are not finite: check the model on the server", retry_after_s=RETRY_AFTER_S
        )
    return tokens
