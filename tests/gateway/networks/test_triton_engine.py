"""The Triton engine against a stand-in server that stalls, or returns after a restart."""

import asyncio
from collections.abc import Awaitable
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("tritonclient.grpc", reason="needs the triton extra")

from gateway.errors import EngineTimeoutError, EngineUnavailableError
from gateway.networks.protocol import Priority
from gateway.networks.triton import server_model
from gateway.networks.triton.engine import TritonEngine
from gateway.settings import Settings
from gateway.turns import current_line
from tests.gateway.networks.stand_in_triton import IMAGES, MODEL, Server


def engine_of(server: Server, tmp_path: Path, **changes: object) -> TritonEngine:
    changes = {"triton_shared_memory": "off", "model_repository": tmp_path / "none", **changes}
    engine = TritonEngine(Settings(**changes))  # type: ignore[arg-type]
    engine._servers.all[0].state.client = server
    return engine


def test_concurrent_callers_of_a_stalled_server_share_one_question(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(server_model, "ASK_TIMEOUT_S", 0.5)

    async def run() -> None:
        server = Server()
        server.answers.clear()
        engine = engine_of(server, tmp_path)
        calls: list[Awaitable[object]] = [engine.tokens(IMAGES, model=MODEL) for _ in range(8)]
        calls += [engine.tokens(IMAGES, model=MODEL, priority=Priority.FIT) for _ in range(8)]
        calls += [engine.ready() for _ in range(16)]
        ends = await asyncio.wait_for(asyncio.gather(*calls, return_exceptions=True), 10)
        assert server.asks == 1
        assert all(isinstance(end, EngineUnavailableError) for end in ends[:16])
        assert not any(end.ready for end in ends[16:])  # type: ignore[attr-defined]
        server.answers.set()
        assert (await engine.tokens(IMAGES, model=MODEL)).shape == (1, 1, 4)
        await engine.close()

    asyncio.run(run())


def test_a_cancelled_caller_does_not_cancel_the_question_of_the_others(tmp_path: Path) -> None:
    async def run() -> None:
        server = Server()
        engine = engine_of(server, tmp_path)
        first, second = (asyncio.create_task(engine.tokens(IMAGES, model=MODEL)) for _ in range(2))
        await asyncio.sleep(0)
        first.cancel()
        assert (await asyncio.wait_for(second, 10)).shape == (1, 1, 4)
        assert first.cancelled()
        assert server.asks == 1
        await engine.close()

    asyncio.run(run())


@pytest.mark.parametrize("priority", Priority)
@pytest.mark.parametrize("known", [False, True], ids=["while asking", "while inferring"])
@pytest.mark.parametrize("shared_memory", ["off", "on"])
def test_the_deadline_holds_at_every_step(tmp_path: Path, priority: Priority, known: bool, shared_memory: str) -> None:
    async def run() -> None:
        server = Server()
        engine = engine_of(
            server,
            tmp_path,
            triton_timeout_s=0.1 if priority is Priority.INSPECT else 600,
            triton_fit_timeout_s=0.1 if priority is Priority.FIT else 600,
            triton_shared_memory=shared_memory,
        )
        if known:
            assert (await engine.ready()).ready
        server.answers.clear()
        calls = [engine.tokens(IMAGES, model=MODEL, priority=priority) for _ in range(2)]
        ends = await asyncio.wait_for(asyncio.gather(*calls, return_exceptions=True), 10)
        assert [type(end) for end in ends] == [EngineTimeoutError] * 2
        server.answers.set()
        await engine.close()
        assert server.regions == set()

    asyncio.run(run())


def test_a_reconnect_during_a_call_leaves_nothing_registered(tmp_path: Path) -> None:
    async def run() -> None:
        server = Server()
        engine = engine_of(server, tmp_path, triton_shared_memory="on")
        await engine.tokens(IMAGES, model=MODEL)
        old = set(server.regions)
        assert len(old) == 1

        async def reconnect() -> None:
            server.inferring = None
            engine._servers.all[0].state.connection += 1
            engine._servers.all[0].state.lose("the connection was lost")
            await engine.tokens(IMAGES, model=MODEL)

        server.inferring = reconnect
        await engine.tokens(IMAGES, model=MODEL)
        await asyncio.wait_for(server.unregistered.acquire(), 10)
        assert len(server.regions) == 1
        assert not server.regions & old, "the region of the new pool was unregistered instead of the old one"
        await engine.close()
        assert server.regions == set()

    asyncio.run(run())


def test_the_question_is_repeated_when_the_connection_changed_meanwhile(tmp_path: Path) -> None:
    async def run() -> None:
        server = Server()
        engine = engine_of(server, tmp_path)
        server.answers.clear()
        asking = asyncio.create_task(engine.ready())
        await server.asked.wait()
        engine._servers.all[0].state.connection += 1
        server.answers.set()
        assert (await asking).ready
        assert server.asks == 2
        assert engine._servers.all[0].state.is_current(engine._servers.all[0].state.served)
        await engine.close()

    asyncio.run(run())


def test_what_waits_for_a_server_goes_to_each_line_in_turn(tmp_path: Path) -> None:
    """Two batches of four are in flight at a time; the quiet line, which sends one image, comes last and is next."""

    async def run() -> list[int]:
        server, may_end = Server(), asyncio.Event()

        async def hold() -> None:
            await may_end.wait()

        server.inferring = hold
        engine = engine_of(server, tmp_path)
        await engine.ready()
        calls = []
        for line, n in (*[("flood", 2)] * 6, ("quiet", 1)):
            current_line.set(line)
            calls.append(asyncio.create_task(engine.tokens(np.repeat(IMAGES, n, axis=0), model=MODEL)))
        for _ in range(100):  # until all that can be sent is sent, and the rest waits
            await asyncio.sleep(0)
        assert server.batches == [2] * 4
        may_end.set()
        await asyncio.gather(*calls)
        await engine.close()
        return server.batches[4:]

    assert asyncio.run(asyncio.wait_for(run(), 10)) == [1, 2, 2]


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_values_that_are_not_finite_are_never_tokens(tmp_path: Path, value: float) -> None:
    async def run() -> None:
        server = Server()
        server.value = value
        engine = engine_of(server, tmp_path)
        with pytest.raises(EngineUnavailableError, match="not finite"):
            await engine.tokens(IMAGES, model=MODEL)
        await engine.close()

    asyncio.run(run())


@pytest.mark.parametrize("content", [None, b"", b"garbage"], ids=["missing", "empty", "garbage"])
def test_a_file_without_certificates_is_named(tmp_path: Path, content: bytes | None) -> None:
    path = tmp_path / "ca.pem"
    if content is not None:
        path.write_bytes(content)
    engine = TritonEngine(Settings(triton_ca_file=path, triton_tls=True))

    async def run() -> None:
        await engine.start()
        assert str(path) in (engine.status.reason or "")
        await engine.close()

    asyncio.run(run())
