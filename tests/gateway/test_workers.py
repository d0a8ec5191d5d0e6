import asyncio
import threading

import pytest
from anyio import CapacityLimiter

from gateway.workers import in_thread


def test_a_cancelled_caller_keeps_its_place_until_its_thread_has_ended() -> None:
    async def run() -> None:
        limiter = CapacityLimiter(1)
        entered, may_end = threading.Event(), threading.Event()

        def work() -> None:
            entered.set()
            may_end.wait(20)

        caller = asyncio.ensure_future(in_thread(work, limiter=limiter))
        assert await asyncio.to_thread(entered.wait, 20)
        for _ in range(3):  # however often it is told to go
            caller.cancel()
            await asyncio.sleep(0.01)
        assert not caller.done()
        assert limiter.borrowed_tokens == 1
        may_end.set()
        with pytest.raises(asyncio.CancelledError):
            await caller
        assert limiter.borrowed_tokens == 0

    asyncio.run(run())


def test_what_a_thread_gives_or_raises_reaches_its_caller() -> None:
    async def run() -> None:
        assert await in_thread(lambda a: a + 1, 1, limiter=CapacityLimiter(1)) == 2
        with pytest.raises(ZeroDivisionError):
            await in_thread(lambda: 1 / 0, limiter=CapacityLimiter(1))

    asyncio.run(run())
