"""System shared memory between this process and a Triton on the same host, so that tensors are not copied by gRPC.

A region is a file under ``/dev/shm`` that both map. It is unlinked as soon as Triton has mapped it, so that a crash
leaves no file behind; what a crashed gateway left registered, the next one on the host unregisters.
"""

import itertools
import logging
import mmap
import os
import re
import socket
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

log = logging.getLogger(__name__)

_FOLDER = Path("/dev/shm")  # noqa: S108 - POSIX shared memory lives there, not temporary files
_HOST = re.sub(r"[^A-Za-z0-9]", "_", socket.gethostname())
_PREFIX = "patchcore"
_NAME = re.compile(rf"{_PREFIX}-{_HOST}-(\d+)-\d+")
_ALIGN = 4096
_numbers = itertools.count()


class Slot:
    """One region: room for a batch of images, and after it for their tokens."""

    def __init__(self, name: str, batch: int, image_bytes: int, token_bytes: int) -> None:
        """Create and map the region.

        Raises:
            OSError: there is no shared memory here, or no room in it.
        """
        self.name = name
        self.batch = batch
        self.offset = -(-batch * image_bytes // _ALIGN) * _ALIGN
        self.size = self.offset + batch * token_bytes
        self._path = _FOLDER / name
        descriptor = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600)
        try:
            # Takes the room now: a full /dev/shm is an error here, not a bus error at the first write.
            os.posix_fallocate(descriptor, 0, self.size)
            self._memory = mmap.mmap(descriptor, self.size)
        except OSError:
            self._path.unlink()
            raise
        finally:
            os.close(descriptor)

    def write(self, images: NDArray[np.uint8]) -> None:
        """Put a batch, uint8 [B, S, S, 3], where Triton reads it."""
        np.frombuffer(self._memory, np.uint8, images.size)[:] = images.reshape(-1)

    def read(self, shape: tuple[int, ...], dtype: np.dtype[Any]) -> NDArray[np.float32]:
        """Copy the tokens that Triton wrote, float32 of `shape`."""
        count = int(np.prod(shape))
        return np.frombuffer(self._memory, dtype, count, self.offset).reshape(shape).astype(np.float32)

    def unlink(self) -> None:
        """Take its name away: whoever has mapped it keeps it, nobody else gets it."""
        self._path.unlink(missing_ok=True)


class SharedMemoryPool:
    """Slots registered with one Triton, as long as one connection to it lasts. Used on the event loop only."""

    def __init__(self, client: Any, image_bytes: int, token_bytes: int, *, limit: int) -> None:
        self._client = client
        self._image_bytes = image_bytes
        self._token_bytes = token_bytes
        self._limit = limit
        self._free: dict[int, list[Slot]] = {}
        self._count = 0

    async def acquire(self, batch: int, capacity: int, timeout_s: float) -> Slot | None:
        """A slot for `batch` images, or None where all are in use: the caller then sends the images by gRPC.

        Args:
            batch: images to send.
            capacity: images that a new slot is made for, where `batch` is more than one.
            timeout_s: for Triton to map a new slot.

        Raises:
            OSError: no shared memory can be had here.
            InferenceServerException: Triton refuses it.
        """
        size = 1 if batch == 1 else capacity
        free = self._free.setdefault(size, [])
        if free:
            return free.pop()
        if self._count >= self._limit:
            return None
        self._count += 1
        try:
            slot = Slot(f"{_PREFIX}-{_HOST}-{os.getpid()}-{next(_numbers)}", size, self._image_bytes, self._token_bytes)
            try:
                await self._client.register_system_shared_memory(
                    slot.name, f"/{slot.name}", slot.size, client_timeout=timeout_s
                )
            finally:
                slot.unlink()
        except BaseException:
            self._count -= 1
            raise
        return slot

    def release(self, slot: Slot) -> None:
        """Give a slot back after Triton has answered."""
        self._free[slot.batch].append(slot)

    async def discard(self, slot: Slot) -> None:
        """Never use a slot again: its call was cut off, so Triton may still read or write it."""
        self._count -= 1
        await self._unregister(slot.name)

    async def close(self) -> None:
        """Unregister what is not in use."""
        for slots in self._free.values():
            for slot in slots:
                await self._unregister(slot.name)
        self._free.clear()

    async def unregister_leftovers(self, timeout_s: float) -> None:
        """Have Triton unmap what gateways of this host registered that are no longer alive."""
        status = await self._client.get_system_shared_memory_status(client_timeout=timeout_s)
        for name in status.regions:
            match = _NAME.fullmatch(name)
            if match and not _is_alive(match[1]):
                log.info("unregistering shared memory %s of a gateway that died", name)
                await self._unregister(name)

    async def _unregister(self, name: str) -> None:
        from tritonclient.utils import InferenceServerException

        try:
            await self._client.unregister_system_shared_memory(name, client_timeout=2.0)
        except InferenceServerException as error:  # a Triton that is gone has unmapped it already
            log.debug("unregistering %s: %s", name, error)


def _is_alive(pid: str) -> bool:
    return Path(f"/proc/{pid}").exists()
