"""Turns of several Triton servers, and the addresses behind a name. tests/triton has a test with real servers."""

import asyncio
import shutil
import subprocess
from collections.abc import Awaitable, Callable
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("tritonclient.grpc", reason="needs the triton extra")

import grpc
from tritonclient.grpc import service_pb2, service_pb2_grpc
from tritonclient.utils import InferenceServerException

from gateway.errors import EngineUnavailableError, ModelMismatchError, OverloadedError
from gateway.networks.triton import channel, server, server_model, servers
from gateway.networks.triton.addresses import resolve
from gateway.networks.triton.engine import TritonEngine
from gateway.settings import Settings
from tests.gateway.networks.stand_in_triton import IMAGES, MODEL, Server

OTHER = MODEL.model_copy(update={"fingerprint": "1"})
FULL = ("StatusCode.UNAVAILABLE", "Exceeds maximum queue size")


def engine_of(tmp_path: Path, *stand_ins: Server) -> TritonEngine:
    url = ",".join(f"gpu-{number}:8001" for number in range(len(stand_ins)))
    engine = TritonEngine(Settings(triton_url=url, model_repository=tmp_path / "none"))
    for each, stand_in in zip(engine._servers.all, stand_ins, strict=True):
        each.state.client = stand_in
    return engine


def run(tmp_path: Path, stand_ins: list[Server], work: Callable[[TritonEngine], Awaitable[None]]) -> None:
    async def whole() -> None:
        engine = engine_of(tmp_path, *stand_ins)
        for each in engine._servers.all:
            await asyncio.gather(each.state.ask(), return_exceptions=True)
        await work(engine)
        await engine.close()

    asyncio.run(asyncio.wait_for(whole(), 20))


def test_three_servers_take_turns(tmp_path: Path) -> None:
    three = [Server() for _ in range(3)]

    async def work(engine: TritonEngine) -> None:
        for _ in range(7):
            await engine.tokens(IMAGES, model=MODEL)

    run(tmp_path, three, work)
    assert [each.infers for each in three] == [3, 2, 2]


def test_a_server_that_is_down_or_full_costs_no_request(tmp_path: Path) -> None:
    down, full, free = (Server() for _ in range(3))
    full.refusal = FULL

    async def work(engine: TritonEngine) -> None:
        down.is_down = True
        for _ in range(4):
            assert (await engine.tokens(IMAGES, model=MODEL)).shape == (1, 1, 4)

    run(tmp_path, [down, full, free], work)
    assert len(free.batches) == 4
    assert down.infers == 1, "a server that was found down is not asked again before it answers"


def test_full_queues_of_all_servers_are_an_overload(tmp_path: Path) -> None:
    both = [Server(), Server()]
    for each in both:
        each.refusal = FULL

    async def work(engine: TritonEngine) -> None:
        with pytest.raises(OverloadedError):
            await engine.tokens(IMAGES, model=MODEL)

    run(tmp_path, both, work)
    assert [each.infers for each in both] == [1, 1]


def test_a_request_goes_only_to_servers_of_its_model(tmp_path: Path) -> None:
    ours, theirs = Server(), Server()
    theirs.model = OTHER
    third = MODEL.model_copy(update={"fingerprint": "2"})

    async def work(engine: TritonEngine) -> None:
        assert engine.model == MODEL, "of the first server"
        for _ in range(3):
            await engine.tokens(IMAGES, model=MODEL)
        assert (ours.infers, theirs.infers) == (3, 0)
        await engine.tokens(IMAGES, model=OTHER)
        assert (ours.infers, theirs.infers) == (3, 1)
        with pytest.raises(ModelMismatchError, match="model 2, Triton now serves 0"):
            await engine.tokens(IMAGES, model=third)

    run(tmp_path, [ours, theirs], work)


def test_the_model_in_use_stays_while_one_server_has_it(tmp_path: Path) -> None:
    first, second = Server(), Server()

    async def work(engine: TritonEngine) -> None:
        assert engine.model == MODEL
        first.model = OTHER
        await engine._servers.all[0].state.ask()
        assert engine.model == MODEL
        second.model = OTHER
        await engine._servers.all[1].state.ask()
        assert engine.model == OTHER

    run(tmp_path, [first, second], work)


def test_a_batch_is_no_larger_than_the_smallest_server_takes(tmp_path: Path) -> None:
    small, large = Server(), Server()
    small.max_batch = 2

    async def work(engine: TritonEngine) -> None:
        tokens = await engine.tokens(np.repeat(IMAGES, 5, axis=0), model=MODEL)
        assert tokens.shape == (5, 1, 4)

    run(tmp_path, [small, large], work)
    assert sorted(small.batches + large.batches) == [1, 2, 2]


def test_one_server_of_another_model_and_one_that_is_down_is_unavailable_and_not_a_mismatch(tmp_path: Path) -> None:
    own = tmp_path / "repository"
    (own / "dinov2_vits14" / "1").mkdir(parents=True)
    (own / "dinov2_vits14" / "1" / "model.json").write_text(MODEL.model_dump_json())
    right, wrong = Server(), Server()
    wrong.model = OTHER

    async def whole() -> None:
        engine = TritonEngine(Settings(triton_url="a:1,b:1", model_repository=own))
        for each, stand_in in zip(engine._servers.all, (right, wrong), strict=True):
            each.state.client = stand_in
        assert (await engine.ready()).ready
        for _ in range(3):
            await engine.tokens(IMAGES, model=MODEL)
        assert wrong.infers == 0
        right.is_down = True
        with pytest.raises(EngineUnavailableError, match=r"a:1: UNAVAILABLE.*b:1: model_mismatch"):
            await engine.tokens(IMAGES, model=MODEL)
        right.is_down, right.model = False, OTHER
        assert not (await engine.ready()).ready
        with pytest.raises(ModelMismatchError, match="this gateway's model is 0"):
            await engine.tokens(IMAGES, model=MODEL)
        await engine.close()

    asyncio.run(asyncio.wait_for(whole(), 20))


def test_readiness_does_not_wait_for_a_server_that_stalls(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server_model, "ASK_TIMEOUT_S", 60)
    stalled, well = Server(), Server()
    stalled.answers.clear()

    async def whole() -> None:
        engine = engine_of(tmp_path, stalled, well)
        assert (await engine.ready()).ready
        assert (await engine.tokens(IMAGES, model=MODEL)).shape == (1, 1, 4)
        await engine.close()

    asyncio.run(asyncio.wait_for(whole(), 20))


def test_a_new_address_of_a_name_is_used_and_one_that_is_gone_is_left(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stand_ins = {f"10.0.0.{number}:8001": Server() for number in (1, 2, 3)}
    answers = [["10.0.0.1:8001", "10.0.0.2:8001"], OSError("no answer"), ["10.0.0.2:8001", "10.0.0.3:8001"]]
    asked = asyncio.Event()

    async def changing(target: str) -> dict[str, str]:
        assert target == "dns:///triton:8001"
        answer = answers.pop(0)
        if not answers:
            asked.set()
            answers.append(answer)
        if isinstance(answer, OSError):
            raise answer
        return dict.fromkeys(answer, "triton")

    def connect(_: Settings, address: str, authority: str | None) -> Server:
        assert authority == "triton"
        return stand_ins[address]

    monkeypatch.setattr(servers, "resolve", changing)
    monkeypatch.setattr(servers, "_RESOLVE_S", 0.01)
    monkeypatch.setattr(server, "connect", connect)

    async def whole() -> None:
        engine = TritonEngine(
            Settings(
                triton_url="dns:///triton:8001",
                model_repository=tmp_path / "none",
                triton_timeout_s=0.1,
                triton_fit_timeout_s=0.1,
            )
        )
        await engine.start()
        first, second, third = stand_ins.values()
        await engine.tokens(IMAGES, model=MODEL)
        await engine.tokens(IMAGES, model=MODEL)
        assert (first.infers, second.infers, third.infers) == (1, 1, 0)
        await asked.wait()
        while third.infers < 2:
            await engine.tokens(IMAGES, model=MODEL)
            await asyncio.sleep(0.01)
        assert first.infers == 1
        await first.closed.wait()
        await engine.close()
        assert second.closed.is_set()
        assert third.closed.is_set()

    asyncio.run(asyncio.wait_for(whole(), 20))


def test_a_name_is_resolved_by_the_system() -> None:
    assert asyncio.run(resolve("dns:///localhost:8001"))["127.0.0.1:8001"] == "localhost"
    assert asyncio.run(resolve("dns:///[::1]:8001")) == {"[::1]:8001": "[::1]"}


def test_the_certificate_of_a_resolved_address_is_that_of_its_name(tmp_path: Path) -> None:
    made = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"]
    made += ["-subj", "/CN=triton.plant", "-addext", "subjectAltName=DNS:triton.plant"]
    if shutil.which("openssl") is None:
        pytest.skip("no openssl on this machine to make a certificate")
    key, certificate = tmp_path / "key.pem", tmp_path / "cert.pem"
    subprocess.run([*made, "-keyout", key, "-out", certificate], check=True, capture_output=True)

    class Live(service_pb2_grpc.GRPCInferenceServiceServicer):
        async def ServerLive(self, request: object, context: object) -> service_pb2.ServerLiveResponse:
            return service_pb2.ServerLiveResponse(live=True)

    async def whole() -> None:
        real = grpc.aio.server()
        service_pb2_grpc.add_GRPCInferenceServiceServicer_to_server(Live(), real)
        identity = [(key.read_bytes(), certificate.read_bytes())]
        port = real.add_secure_port("127.0.0.1:0", grpc.ssl_server_credentials(identity))
        await real.start()
        settings = Settings(triton_tls=True, triton_ca_file=certificate)
        named = channel.connect(settings, f"127.0.0.1:{port}", "triton.plant")
        assert await named.is_server_live(client_timeout=10)
        bare = channel.connect(settings, f"127.0.0.1:{port}")
        with pytest.raises(InferenceServerException, match=r"(?i)handshake|certificate|peer|connect"):
            await bare.is_server_live(client_timeout=10)
        await named.close()
        await bare.close()
        await real.stop(None)

    asyncio.run(asyncio.wait_for(whole(), 30))


def test_a_name_without_an_address_says_so_and_is_asked_again(tmp_path: Path) -> None:
    async def whole() -> None:
        engine = TritonEngine(Settings(triton_url="dns:///triton.invalid:8001", model_repository=tmp_path / "none"))
        await engine.start()
        assert not engine.status.ready
        assert "dns:///triton.invalid:8001" in (engine.status.reason or "")
        with pytest.raises(EngineUnavailableError, match=r"triton\.invalid"):
            await engine.tokens(IMAGES, model=MODEL)
        await engine.close()

    asyncio.run(asyncio.wait_for(whole(), 20))
