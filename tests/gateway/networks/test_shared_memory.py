"""The pool of shared memory against a stand-in for Triton: no error leaves a region registered."""

import asyncio
import errno
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("tritonclient.grpc", reason="needs the triton extra")

from tritonclient.utils import InferenceServerException

from gateway.networks.triton import shared_memory
from gateway.networks.triton.shared_memory import SharedMemoryPool

HEADERS = {"authorization": "Bearer secret"}


def size_of(name: str) -> int | None:
    """Return the size of the file of a region, or None without a file."""
    path = Path("/dev/shm", name.removeprefix("/"))
    return path.stat().st_size if path.exists() else None


class Server:
    """Keeps regions as Triton does. The test refuses or delays its answers."""

    def __init__(self) -> None:
        self.regions: set[str] = set()
        self.refusals: list[InferenceServerException] = []
        self.unregistered: list[str] = []
        self.headers: list[dict[str, str] | None] = []
        self.answers = asyncio.Event()
        self.answers.set()

    async def register_system_shared_memory(
        self, name: str, key: str, byte_size: int, headers: dict[str, str] | None = None, client_timeout: float = 0
    ) -> None:
        self.headers.append(headers)
        assert size_of(key) == byte_size
        self.regions.add(name)
        await self.answers.wait()

    async def unregister_system_shared_memory(
        self, name: str, headers: dict[str, str] | None = None, client_timeout: float = 0
    ) -> None:
        self.headers.append(headers)
        self.unregistered.append(name)
        if self.refusals:
            raise self.refusals.pop()
        self.regions.discard(name)

    async def get_system_shared_memory_status(
        self, headers: dict[str, str] | None = None, client_timeout: float = 0
    ) -> Any:
        self.headers.append(headers)
        return type("Status", (), {"regions": dict.fromkeys(self.regions)})


def pool_of(server: Server, limit: int = 2) -> SharedMemoryPool:
    return SharedMemoryPool(server, 300, 64, limit=limit, headers=HEADERS)


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(10):
        while not condition():  # noqa: ASYNC110 - the condition is of the code under test, which has no event for it
            await asyncio.sleep(0.01)


@pytest.fixture(autouse=True)
def quick_retries(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shared_memory, "_UNREGISTER_FIRST_PAUSE_S", 0.01)


def test_a_slot_is_reused_and_its_file_is_unlinked_at_once() -> None:
    async def run() -> None:
        server = Server()
        pool = pool_of(server)
        slot = await pool.acquire(1, 4, 1)
        assert slot is not None
        assert f"-{os.getpid()}-" in slot.name
        assert size_of(slot.name) is None
        images = np.arange(300, dtype=np.uint8)
        slot.write(images)
        np.testing.assert_array_equal(slot._memory[:300], images.tobytes())
        pool.release(slot)
        assert await pool.acquire(1, 4, 1) is slot
        other = await pool.acquire(3, 4, 1)
        assert other is not None
        assert other.batch == 4
        assert await pool.acquire(1, 4, 1) is None  # the limit
        await pool.close()
        assert server.regions == set()
        assert all(headers == HEADERS for headers in server.headers)

    asyncio.run(run())


def test_a_cancelled_registration_leaves_nothing_registered() -> None:
    async def run() -> None:
        server = Server()
        server.answers.clear()
        pool = pool_of(server, limit=1)
        task = asyncio.create_task(pool.acquire(1, 4, 1))
        await until(lambda: bool(server.regions))
        (name,) = server.regions
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert size_of(name) is None
        await until(lambda: pool.is_empty)
        assert server.regions == set()
        server.answers.set()
        assert await pool.acquire(1, 4, 1) is not None  # below the limit of one again
        await pool.close()

    asyncio.run(run())


def test_a_discarded_slot_counts_until_triton_has_unmapped_it() -> None:
    async def run() -> None:
        server = Server()
        pool = pool_of(server, limit=1)
        slot = await pool.acquire(1, 4, 1)
        assert slot is not None
        server.refusals = [InferenceServerException("region is currently in use", "StatusCode.INTERNAL")] * 3
        pool.discard(slot)
        await until(lambda: bool(server.unregistered))
        assert await pool.acquire(1, 4, 1) is None
        await until(lambda: pool.is_empty)
        assert server.unregistered == [slot.name] * 4
        assert server.regions == set()
        assert await pool.acquire(1, 4, 1) is not None
        await pool.close()

    asyncio.run(run())


def test_a_region_that_triton_does_not_know_counts_as_unregistered() -> None:
    async def run() -> None:
        server = Server()
        pool = pool_of(server)
        slot = await pool.acquire(1, 4, 1)
        assert slot is not None
        server.refusals = [InferenceServerException("no such region", "StatusCode.NOT_FOUND")]
        pool.discard(slot)
        await until(lambda: pool.is_empty)
        assert server.unregistered == [slot.name]

    asyncio.run(run())


def test_a_retired_pool_unregisters_free_slots_at_once_and_the_others_when_released() -> None:
    async def run() -> None:
        server = Server()
        pool = pool_of(server)
        used, free = await pool.acquire(1, 4, 1), await pool.acquire(1, 4, 1)
        assert used is not None
        assert free is not None
        pool.release(free)
        pool.retire()
        await until(lambda: server.regions == {used.name})
        assert await pool.acquire(1, 4, 1) is None
        used.pool.release(used)
        await until(lambda: pool.is_empty)
        assert server.regions == set()

    asyncio.run(run())


def test_a_pool_retired_while_triton_maps_a_slot_does_not_hand_it_out() -> None:
    async def run() -> None:
        server = Server()
        server.answers.clear()
        pool = pool_of(server)
        task = asyncio.create_task(pool.acquire(1, 4, 1))
        await until(lambda: bool(server.regions))
        pool.retire()
        server.answers.set()
        assert await task is None
        await until(lambda: pool.is_empty)
        assert server.regions == set()

    asyncio.run(run())


def test_a_close_ends_although_triton_refuses_to_unmap() -> None:
    async def run() -> None:
        server = Server()
        pool = pool_of(server)
        slot = await pool.acquire(1, 4, 1)
        assert slot is not None
        server.refusals = [InferenceServerException("currently in use", "StatusCode.INTERNAL")] * 1000
        pool.discard(slot)
        await asyncio.wait_for(pool.close(), 10)
        tried = len(server.unregistered)
        pool.discard(slot)
        await asyncio.sleep(0.05)
        assert len(server.unregistered) == tried

    asyncio.run(run())


def test_a_full_dev_shm_gives_no_slot_and_a_later_request_gets_one(monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    async def run() -> None:
        server = Server()
        pool = pool_of(server, limit=1)
        with monkeypatch.context() as patch:
            patch.setattr(os, "posix_fallocate", full)
            assert await pool.acquire(1, 4, 1) is None
            assert await pool.acquire(1, 4, 1) is None
        assert server.headers == []
        assert await pool.acquire(1, 4, 1) is not None
        await pool.close()

    asyncio.run(run())


def test_leftovers_of_dead_processes_are_found_even_with_the_number_of_this_process() -> None:
    prefix = f"{shared_memory._PREFIX}-{shared_memory._HOST}"
    token = shared_memory._TOKEN
    gone, own = 2**22 + 1, os.getpid()  # above the highest process number of Linux
    kept = {f"{prefix}-{own}-{token}-7", f"{prefix}-{os.getppid()}-{'0' * 8}-0", "other-1-2", f"{prefix}x-{gone}-0"}
    dead = {f"{prefix}-{gone}-{token}-0", f"{prefix}-{own}-{'0' * 8}-0", f"{prefix}-{own}-3"}

    async def run() -> None:
        server = Server()
        server.regions = kept | dead
        pool = pool_of(server)
        await pool.unregister_leftovers(5)
        assert server.regions == kept
        assert all(headers == HEADERS for headers in server.headers)

    asyncio.run(run())
