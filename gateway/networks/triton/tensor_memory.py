"""Choose between shared memory and gRPC for the tensors of a request to Triton."""

import asyncio
import logging

from gateway.networks.triton.channel import authorization, is_local, is_out_of_time, is_unreachable
from gateway.networks.triton.server_model import ASK_TIMEOUT_S, ServedModel, ServerModel
from gateway.networks.triton.shared_memory import SharedMemoryPool, Slot
from gateway.settings import Settings

log = logging.getLogger(__name__)

_SLOTS = 32


class TensorMemory:
    """The shared memory of the current connection, and that of earlier ones until Triton has unmapped it."""

    def __init__(self, settings: Settings, server: ServerModel) -> None:
        self._settings = settings
        self._server = server
        self._pool: SharedMemoryPool | None = None
        self._old: list[SharedMemoryPool] = []
        """Pools of earlier connections, of which Triton may still have something mapped."""
        self._refused = settings.triton_shared_memory == "off" or (
            settings.triton_shared_memory == "auto" and not is_local(settings.triton_targets)
        )

    async def slot(self, batch: int, served: ServedModel) -> Slot | None:
        """Return a slot for `batch` images, or None where they go by gRPC."""
        from tritonclient.utils import InferenceServerException

        if self._refused or served != self._server.served or not self._server.is_current(served):
            return None
        try:
            pool = self._pool
            if pool is None:
                model = served.model
                pool = SharedMemoryPool(
                    self._server.client,
                    model.input_size**2 * 3,
                    model.n_tokens * model.dim * served.dtype.itemsize,
                    limit=_SLOTS,
                    headers=authorization(self._settings),
                )
                self._pool = pool
                await pool.unregister_leftovers(ASK_TIMEOUT_S)
            return await pool.acquire(batch, served.max_batch, ASK_TIMEOUT_S)
        except (OSError, InferenceServerException) as error:
            if is_unreachable(error) or is_out_of_time(error):
                return None  # not a refusal: the request itself reports it
            self._refused = True
            log.warning("no shared memory with Triton at %s, images go by gRPC: %s", self._server.address, error)
            return None

    def retire(self) -> None:
        """Start a new pool at the next request, and have Triton unmap the old one."""
        self._old = [pool for pool in self._old if not pool.is_empty]
        if self._pool is not None:
            self._pool.retire()
            self._old.append(self._pool)
            self._pool = None

    async def close(self) -> None:
        """Unregister all memory, as far as Triton allows it now."""
        pools = [*self._old, *([] if self._pool is None else [self._pool])]
        await asyncio.gather(*(pool.close() for pool in pools))
