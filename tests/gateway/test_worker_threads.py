import asyncio
import threading
from pathlib import Path
from typing import Any

import pytest
from anyio import CapacityLimiter

from gateway.inspection import pipeline
from gateway.turns import current_line
from gateway.worker_threads import in_thread, on_event_loop
from tests.gateway.brightness_engine import image
from tests.gateway.fit_bench import EVEN, Bench, request_of


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


def test_results_and_exceptions_of_a_thread_reach_its_caller() -> None:
    async def run() -> None:
        assert await in_thread(lambda a: a + 1, 1, limiter=CapacityLimiter(1)) == 2
        with pytest.raises(ZeroDivisionError):
            await in_thread(lambda: 1 / 0, limiter=CapacityLimiter(1))

    asyncio.run(run())


def test_a_thread_sees_the_context_of_its_caller_and_so_does_what_it_runs_on_the_event_loop() -> None:
    async def run() -> None:
        async def line_on(caller: asyncio.AbstractEventLoop) -> str:
            assert asyncio.get_running_loop() is caller
            return current_line.get()

        def work(caller: asyncio.AbstractEventLoop) -> tuple[str, str]:
            return current_line.get(), on_event_loop(line_on, caller)

        current_line.set("line 1")
        assert await in_thread(work, asyncio.get_running_loop(), limiter=CapacityLimiter(1)) == ("line 1", "line 1")

    asyncio.run(run())


def test_an_inspection_without_its_client_ends_with_its_thread(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    bench = Bench(tmp_path / "models")
    bench.fit(EVEN)
    entered, may_end = threading.Event(), threading.Event()
    decode = pipeline.decode_picture

    def slow_decode(*args: Any) -> Any:
        entered.set()
        may_end.wait(20)
        return decode(*args)

    monkeypatch.setattr(pipeline, "decode_picture", slow_decode)

    async def run() -> None:
        inspection = asyncio.ensure_future(bench.pipeline.infer(request_of(image(65))))
        assert await asyncio.to_thread(entered.wait, 20)
        inspection.cancel()
        await asyncio.sleep(0.05)
        assert not inspection.done()  # else its place is another's, and its pixels are in memory all the same
        may_end.set()
        with pytest.raises(asyncio.CancelledError):
            await inspection

    asyncio.run(run())
