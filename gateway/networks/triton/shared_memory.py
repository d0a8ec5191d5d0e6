"""System shared memory between this process and a Triton on the same host, so that gRPC does not copy tensors.

A region is a file under ``/dev/shm`` that both processes map. The gateway unlinks it as soon as Triton has mapped it,
so that a crash leaves no file. The next gateway on the host unregisters the regions of a crashed gateway.
"""

import asyncio
import errno
import itertools
import logging
import mmap
import os
import re
import secrets
import socket
from collections.abc import Coroutine
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

log = logging.getLogger(__name__)

_FOLDER = Path("/dev/shm")  # noqa: S108 - POSIX shared memory lives there, not temporary files
_HOST = re.sub(r"[^A-Za-z0-9]", "_", socket.gethostname())
_PREFIX = "patchcore"
_TOKEN = secrets.token_hex(4)
"""Distinguishes this process from an earlier one with the same number: in a container, each may be process 1."""
_NAME = re.compile(rf"{_PREFIX}-{_HOST}-(\d+)-(?:([0-9a-f]{{8}})-)?\d+")
_ALIGN = 4096
_CALL_TIMEOUT_S = 2.0
_UNREGISTER_ATTEMPTS = 60
_UNREGISTER_FIRST_PAUSE_S = 0.1
_UNREGISTER_LONGEST_PAUSE_S = 5.0
_numbers = itertools.count()


class Slot:
    """One region: space for a batch of images, followed by space for their tokens."""

    def __init__(self, pool: "SharedMemoryPool", name: str, batch: int, image_bytes: int, token_bytes: int) -> None:
        """Create and map the region.

        Raises:
            OSError: this host has no shared memory, or it is full.
        """
        self.pool = pool
        """The pool that takes the slot back. The engine may use another pool by then."""
        self.name = name
        self.batch = batch
        self.offset = -(-batch * image_bytes // _ALIGN) * _ALIGN
        self.size = self.offset + batch * token_bytes
        self._path = _FOLDER / name
        descriptor = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600)
        try:
            # Reserve the space now: a full /dev/shm is an error here, and not a bus error at the first write.
            os.posix_fallocate(descriptor, 0, self.size)
            self._memory = mmap.mmap(descriptor, self.size)
        except OSError:
            self._path.unlink()
            raise
        finally:
            os.close(descriptor)

    def write(self, images: NDArray[np.uint8]) -> None:
        """Write a batch, uint8 [B, S, S, 3], where Triton reads it."""
        np.frombuffer(self._memory, np.uint8, images.size)[:] = images.reshape(-1)

    def view(self, shape: tuple[int, ...], dtype: np.dtype[Any]) -> NDArray[Any]:
        """Return the tokens that Triton wrote, of `shape`, where they are: the next request overwrites them."""
        count = int(np.prod(shape))
        return np.frombuffer(self._memory, dtype, count, self.offset).reshape(shape)

    def unlink(self) -> None:
        """Delete the file. Processes that have mapped it keep their mapping."""
        self._path.unlink(missing_ok=True)


class SharedMemoryPool:
    """Slots that are registered with one Triton during one connection. Used on the event loop only."""

    def __init__(
        self, client: Any, image_bytes: int, token_bytes: int, *, limit: int, headers: dict[str, str] | None = None
    ) -> None:
        self._client = client
        self._image_bytes = image_bytes
        self._token_bytes = token_bytes
        self._limit = limit
        self._headers = headers
        self._free: dict[int, list[Slot]] = {}
        self._registered: dict[str, Slot] = {}
        """All slots that Triton may have mapped: free, in use, or being unregistered."""
        self._retired = self._closed = False
        self._said_full = False
        self._tasks: set[asyncio.Task[None]] = set()

    @property
    def is_empty(self) -> bool:
        """True when Triton has nothing of this pool mapped."""
        return not self._registered and not self._tasks

    async def acquire(self, batch: int, capacity: int, timeout_s: float) -> Slot | None:
        """Return a slot for `batch` images, or None: the caller then sends the images by gRPC.

        Args:
            batch: images to send.
            capacity: number of images in a new slot, where `batch` is more than one.
            timeout_s: time limit for Triton to map a new slot.

        Raises:
            OSError: shared memory is unavailable on this host.
            InferenceServerException: Triton refuses the region.
        """
        size = 1 if batch == 1 else capacity
        free = self._free.get(size)
        if free:
            return free.pop()
        if len(self._registered) >= self._limit:
            return None
        name = f"{_PREFIX}-{_HOST}-{os.getpid()}-{_TOKEN}-{next(_numbers)}"
        try:
            slot = Slot(self, name, size, self._image_bytes, self._token_bytes)
        except OSError as error:
            if error.errno != errno.ENOSPC:
                raise
            if not self._said_full:
                log.warning("%s is full: images that do not fit there go by gRPC", _FOLDER)
            self._said_full = True
            return None
        self._registered[name] = slot
        try:
            await self._client.register_system_shared_memory(
                name, f"/{name}", slot.size, headers=self._headers, client_timeout=timeout_s
            )
        except BaseException:
            # Triton may have mapped the region all the same. After the unlink it no longer can.
            slot.unlink()
            self.discard(slot)
            raise
        slot.unlink()
        if self._retired:  # while Triton was asked
            self.discard(slot)
            return None
        return slot

    def release(self, slot: Slot) -> None:
        """Return a slot to the pool after Triton has answered."""
        if self._retired:
            self.discard(slot)
        else:
            self._free.setdefault(slot.batch, []).append(slot)

    def discard(self, slot: Slot) -> None:
        """Stop using a slot whose request was cut off, since Triton may still read or write it.

        The slot counts towards the limit until Triton has unmapped it.
        """
        if not self._closed:
            self._spawn(self._unregister(slot.name))

    def retire(self) -> None:
        """Make no more slots. Unregister the free slots now, and the others when they are released."""
        self._retired, self._limit = True, 0
        for slots in self._free.values():
            for slot in slots:
                self.discard(slot)
        self._free.clear()

    async def close(self) -> None:
        """Stop the background tasks, and unregister all remaining slots as far as Triton allows it now."""
        self._retired = self._closed = True
        self._limit = 0
        self._free.clear()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await asyncio.gather(*(self._unregister(name, attempts=1) for name in list(self._registered)))

    async def unregister_leftovers(self, timeout_s: float) -> None:
        """Make Triton unmap the regions of gateways on this host that no longer run."""
        status = await self._client.get_system_shared_memory_status(headers=self._headers, client_timeout=timeout_s)
        tasks = []
        for name in status.regions:
            match = _NAME.fullmatch(name)
            if match and not _is_alive(match[1], match[2]):
                log.info("unregistering shared memory %s of a gateway that died", name)
                tasks.append(self._spawn(self._unregister(name)))
        if tasks:
            await asyncio.wait(tasks, timeout=timeout_s)

    def _spawn(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        task = asyncio.create_task(work, name="triton shared memory")
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    async def _unregister(self, name: str, attempts: int = _UNREGISTER_ATTEMPTS) -> None:
        """Ask until Triton agrees. It refuses while a request uses the region, and may be unreachable for some time."""
        from tritonclient.utils import InferenceServerException

        pause_s = _UNREGISTER_FIRST_PAUSE_S
        for attempt in range(1, attempts + 1):
            try:
                await self._client.unregister_system_shared_memory(
                    name, headers=self._headers, client_timeout=_CALL_TIMEOUT_S
                )
            except InferenceServerException as error:
                if not _is_not_found(error):
                    log.debug("unregistering %s: %s", name, error)
                    if attempt < attempts:
                        await asyncio.sleep(pause_s)
                        pause_s = min(2 * pause_s, _UNREGISTER_LONGEST_PAUSE_S)
                    continue
            self._registered.pop(name, None)
            return
        log.warning("shared memory %s may still be registered with Triton", name)


def _is_not_found(error: Any) -> bool:
    return "NOT_FOUND" in (error.status() or "") or "not found" in (error.message() or "").lower()


def _is_alive(pid: str, token: str | None) -> bool:
    if int(pid) == os.getpid():
        return token == _TOKEN
    return Path(f"/proc/{pid}").exists()
