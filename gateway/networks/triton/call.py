"""One request to Triton for the tokens of one batch: its encoding, its deadline, one retry, and its errors."""

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

log = logging.getLogger(__name__)

_RETRY_BACKOFF_S = 0.1


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


class TritonCall:
    """Sends batches to one model on the server. It holds no state of its own."""

    def __init__(self, settings: Settings, name: str, server: ServerModel, memory: TensorMemory) -> None:
        self._settings = settings
        self._name = name
        self._server = server
        self._memory = memory

    async def tokens(
        self, images: NDArray[np.uint8], served: ServedModel, priority: Priority, ends: float
    ) -> NDArray[np.float32]:
        """Send one request, and send it once more if the server was unreachable.

        Args:
            images: uint8 [B, S, S, 3], RGB; B is at most `served.max_batch`.
            served: the model to ask.
            priority: Triton serves inspections before fits.
            ends: the deadline, on the clock of `time.monotonic`.

        Returns:
            float32 [B, N, D], each token of L2 norm 1.

        Raises:
            EngineUnavailableError: the server cannot answer.
            EngineTimeoutError: the server did not answer in time.
            OverloadedError: the server's queue is full.
            ModelMismatchError: another model answered.
        """
        from tritonclient.utils import InferenceServerException

        server = self._server
        for attempt in (1, 2):
            try:
                tokens, version = await self._attempt(images, served, priority, ends)
            except InferenceServerException as error:
                failure = self._failure(error, priority)
                left = ends - time.monotonic()
                if attempt == 2 or not _worth_retrying(error) or left < 2 * _RETRY_BACKOFF_S:
                    raise failure from error
                await asyncio.sleep(_RETRY_BACKOFF_S)
                now = await server.ask()
                if not now.model.same_model_as(served.model):
                    raise changed(served.model, now.model) from error
                served = now
            else:
                if version != served.version or not server.is_current(served):
                    now = await server.ask()
                    if now.version != version or not now.model.same_model_as(served.model):
                        raise changed(served.model, now.model)
                return tokens
        raise AssertionError("unreachable")

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
            if slot is None:
                tokens = np.asarray(result.as_numpy(model.output_name)).astype(np.float32)
            else:
                tokens = slot.read(shape, served.dtype)
        finally:
            # To the pool it came from: the engine may use another by now.
            if slot is not None and answered:
                slot.pool.release(slot)
            elif slot is not None:
                slot.pool.discard(slot)
        return tokens, str(result.get_response().model_version)

    def _failure(self, error: Any, priority: Priority) -> GatewayError:
        """Return the gateway's error for an error of the Triton client."""
        status, message = error.status() or "", error.message() or ""
        if "Exceeds maximum queue size" in message:
            return OverloadedError(f"Triton's queue is full: {message}", retry_after_s=RETRY_AFTER_S)
        if "DEADLINE_EXCEEDED" in status or "timeout expired" in message:
            return _timed_out(self._settings, priority)
        said = f"{status.removeprefix('StatusCode.')}: {message}"
        if "UNAVAILABLE" in status or "NOT_FOUND" in status:
            self._server.lose(said)
            return self._server.unavailable()
        log.error("triton at %s: %s", self._settings.triton_url, said)
        return EngineUnavailableError(f"Triton could not answer: {said}", retry_after_s=RETRY_AFTER_S)


def _timed_out(settings: Settings, priority: Priority) -> EngineTimeoutError:
    return EngineTimeoutError(
        f"Triton did not answer within {timeout_s(settings, priority):g} s", retry_after_s=RETRY_AFTER_S
    )


def _worth_retrying(error: Any) -> bool:
    """Tell whether the server was unreachable or not ready, as opposed to refusing the request."""
    message = error.message() or ""
    return is_unreachable(error) and "Exceeds maximum queue size" not in message and "timeout expired" not in message
