import asyncio
import json
import os
import shutil
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import onnxruntime
import openvino
import pytest

from gateway.errors import EngineTimeoutError, EngineUnavailableError
from gateway.networks.embedded import engine as embedded
from gateway.networks.embedded import runtimes
from gateway.networks.embedded.engine import EmbeddedEngine
from gateway.networks.embedded.runtimes import OnnxRuntimeNetwork, supports_bf16
from gateway.networks.model_description import ModelDescription, WeightsSource, newest_version, read_description
from gateway.networks.protocol import Priority
from gateway.settings import Settings
from tests.conftest import PROJECT
from tests.export.tiny_model import write_version

NOT_THERE = ModelDescription(
    name="m",
    timm_id="t",
    input_size=378,
    scales=(384,),
    layers=(9, 11),
    token_hw=(27, 27),
    dim=768,
    weights=WeightsSource(kind="seed", detail="seed:0", sha256="0"),
    graph_sha256="0",
    fingerprint="0",
)


def settings_for(repository: Path, tmp_path: Path, **changes: object) -> Settings:
    return Settings(model_repository=repository, cache_dir=tmp_path / "cache", **changes)  # type: ignore[arg-type]


def test_tokens_are_those_of_onnx_runtime_for_any_batch(small_model_repository: Path, tmp_path: Path) -> None:
    folder = newest_version(small_model_repository / "dinov2_vits14")
    model = read_description(folder)
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (6, model.input_size, model.input_size, 3), np.uint8)
    expected = OnnxRuntimeNetwork(folder, model, device="cpu").run(images)

    async def run() -> None:
        engine = EmbeddedEngine(settings_for(small_model_repository, tmp_path, precision="f32", device="cpu"))
        await engine.start()
        assert (await engine.ready()).runtime == "openvino-f32"
        tokens = await engine.tokens(images, model=model)
        assert tokens.shape == (6, 64, 768)
        np.testing.assert_allclose(tokens, expected, atol=1e-4)
        np.testing.assert_allclose(np.linalg.norm(tokens, axis=-1), 1, atol=1e-4)
        np.testing.assert_array_equal(await engine.tokens(images[4:5], model=model), tokens[4:5])
        await engine.close()

    asyncio.run(run())


def test_bf16_is_used_only_where_the_export_passed_in_it(small_model_repository: Path, tmp_path: Path) -> None:
    if not supports_bf16():
        pytest.skip("this processor has no bf16")
    repository = tmp_path / "repository"
    shutil.copytree(small_model_repository, repository)
    path = newest_version(repository / "dinov2_vits14") / "model.json"

    async def runtime() -> str:
        engine = EmbeddedEngine(settings_for(repository, tmp_path, device="cpu"))
        await engine.start()
        status = await engine.ready()
        await engine.close()
        return status.runtime

    description = json.loads(path.read_text())
    assert description["parity"]["openvino-bf16"]["passed"]
    assert asyncio.run(runtime()) == "openvino-bf16"
    description["parity"]["openvino-bf16"]["passed"] = False
    path.write_text(json.dumps(description))
    assert asyncio.run(runtime()) == "openvino-f32"
    del description["parity"]["openvino-bf16"]
    path.write_text(json.dumps(description))
    assert asyncio.run(runtime()) == "openvino-f32"


@pytest.fixture
def compilations(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Names of the threads that compiled a graph, in order."""
    threads: list[str] = []
    compile_model = openvino.Core.compile_model

    def counted(*arguments: object, **options: object) -> object:
        threads.append(threading.current_thread().name)
        return compile_model(*arguments, **options)

    monkeypatch.setattr(openvino.Core, "compile_model", counted)
    return threads


@pytest.mark.parametrize("priority", Priority)
def test_the_thread_of_the_inspections_compiles_nothing(
    small_model_repository: Path, tmp_path: Path, compilations: list[str], priority: Priority
) -> None:
    async def run() -> None:
        engine = EmbeddedEngine(settings_for(small_model_repository, tmp_path, device="cpu"))
        await engine.start()
        at_start = list(compilations)
        size = engine.model.input_size
        for count in (4, 1, 5, 16):  # the first batch of 4 comes first
            images = np.zeros((count, size, size, 3), np.uint8)
            assert len(await engine.tokens(images, model=engine.model, priority=priority)) == count
        await engine.close()
        assert at_start
        assert compilations == at_start
        assert not any(name.startswith("engine") for name in compilations)

    asyncio.run(run())


@pytest.mark.parametrize("content", [None, "", "{}", '{"format": 2}'])
def test_without_a_model_the_engine_starts_and_says_what_is_missing(tmp_path: Path, content: str | None) -> None:
    if content is not None:
        folder = tmp_path / "dinov2_vits14" / "1"
        folder.mkdir(parents=True)
        (folder / "model.json").write_text(content)

    async def run() -> None:
        engine = EmbeddedEngine(settings_for(tmp_path, tmp_path))
        await engine.start()
        status = await engine.ready()
        assert not status.ready
        assert "python -m export" in (status.reason or "")
        with pytest.raises(EngineUnavailableError) as caught:
            await engine.tokens(np.zeros((1, 378, 378, 3), np.uint8), model=NOT_THERE)
        assert caught.value.retry_after_s is not None
        with pytest.raises(EngineUnavailableError):
            _ = engine.model
        await engine.close()

    asyncio.run(run())


def started(repository: Path, tmp_path: Path, **changes: object) -> str:
    """Start an engine, and return why it is not ready."""

    async def run() -> str:
        engine = EmbeddedEngine(settings_for(repository, tmp_path, **changes))
        await engine.start()
        status = await engine.ready()
        await engine.close()
        assert not status.ready
        assert "\n" not in (status.reason or "")
        return status.reason or ""

    return asyncio.run(run())


@pytest.mark.parametrize("damage", ["another model", "cut", "empty", "missing"])
def test_a_graph_that_is_not_the_described_one_is_not_served(tmp_path: Path, damage: str) -> None:
    repository = tmp_path / "repository"
    folder = repository / "dinov2_vits14" / "1"
    write_version(folder)
    graph = folder / "model.onnx"
    if damage == "another model":
        write_version(tmp_path / "other", factor=2)
        shutil.copy(tmp_path / "other" / "model.onnx", graph)
    elif damage == "missing":
        graph.unlink()
    else:
        graph.write_bytes(graph.read_bytes()[:300] if damage == "cut" else b"")
    reason = started(repository, tmp_path)
    assert str(graph) in reason
    assert "export the model again" in reason


def test_a_description_that_does_not_fit_the_graph_is_not_served(tmp_path: Path) -> None:
    folder = tmp_path / "dinov2_vits14" / "1"
    write_version(folder)
    path = folder / "model.json"
    for change in ({"dim": 7}, {"token_hw": [3, 3]}, {"input_size": 0}, {"input_name": "picture"}):
        path.write_text(json.dumps({**json.loads(path.read_text()), **change}))
        assert started(tmp_path, tmp_path)


def test_a_model_that_appears_later_is_loaded_without_a_restart(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(embedded, "_LOOK_AGAIN_S", 0.01)

    async def run() -> None:
        engine = EmbeddedEngine(settings_for(tmp_path, tmp_path))
        await engine.start()
        assert not (await engine.ready()).ready
        broken = tmp_path / "dinov2_vits14" / "1"
        broken.mkdir(parents=True)
        (broken / "model.json").write_text("{")  # half copied
        while "not a model description" not in (engine.status.reason or ""):  # noqa: ASYNC110 - no event for it
            await asyncio.sleep(0.01)
        write_version(tmp_path / "aside")
        (tmp_path / "aside").rename(tmp_path / "dinov2_vits14" / "2")
        while not engine.status.ready:  # noqa: ASYNC110 - no event for it
            await asyncio.sleep(0.01)
        await engine.close()

    asyncio.run(asyncio.wait_for(run(), 60))


def test_cuda_without_a_gpu_names_the_remedy(tmp_path: Path) -> None:
    write_version(tmp_path / "dinov2_vits14" / "1")
    assert "GATEWAY_DEVICE=cpu" in started(tmp_path, tmp_path, device="cuda")


def test_a_cuda_that_is_asked_for_and_not_there_stops_the_start_with_the_reason(tmp_path: Path) -> None:
    if "CUDAExecutionProvider" in onnxruntime.get_available_providers():
        pytest.skip("this ONNX Runtime has CUDA")
    environment = {**os.environ, "GATEWAY_DEVICE": "cuda", "GATEWAY_PORT": "0", "GATEWAY_MODELS_DIR": str(tmp_path)}
    done = subprocess.run(
        [sys.executable, "-m", "gateway"], cwd=PROJECT, env=environment, capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 2
    assert "error: GATEWAY_DEVICE=cuda: this ONNX Runtime has no CUDAExecutionProvider" in done.stderr
    assert "install the gpu extra, or set GATEWAY_DEVICE=cpu" in done.stderr


def test_the_graph_that_checks_cuda_computes_what_it_is_given() -> None:
    (found,) = runtimes._session(runtimes._IDENTITY, "cpu").run(None, {"x": np.array([2.5], np.float32)})
    assert found == [2.5]


def test_values_that_are_not_finite_are_never_tokens(tmp_path: Path) -> None:
    write_version(tmp_path / "dinov2_vits14" / "1", factor=float("nan"))
    assert "not finite" in started(tmp_path, tmp_path, precision="f32")


class Blocking:
    """A network that does not answer until `may_end` is set."""

    runtime, device, largest_batch = "blocking", "cpu", 2

    def __init__(self) -> None:
        self.entered, self.may_end = threading.Event(), threading.Event()

    def run(self, images: np.ndarray) -> np.ndarray:
        self.entered.set()
        assert self.may_end.wait(60)
        return np.zeros((len(images), 729, 768), np.float32)


def blocked(tmp_path: Path, **changes: object) -> tuple[EmbeddedEngine, Blocking]:
    """An engine with a blocking network; all other parts are real."""
    engine = EmbeddedEngine(settings_for(tmp_path, tmp_path, **changes))
    network = Blocking()
    engine._network, engine._model, engine._reason = network, NOT_THERE, None
    return engine, network


IMAGE = np.zeros((1, 378, 378, 3), np.uint8)


def test_a_stuck_call_times_out_shows_in_ready_and_recovers_when_it_returns(tmp_path: Path) -> None:
    async def run() -> None:
        engine, network = blocked(tmp_path, engine_timeout_s=0.2, engine_fit_timeout_s=0.3)
        assert (await engine.ready()).ready
        calls = [engine.tokens(IMAGE, model=NOT_THERE, priority=p) for p in (Priority.INSPECT, Priority.FIT)]
        ends = await asyncio.gather(*calls, return_exceptions=True)
        assert [type(end) for end in ends] == [EngineTimeoutError, EngineTimeoutError]
        assert all(end.retry_after_s for end in ends if isinstance(end, EngineTimeoutError))
        status = await engine.ready()
        assert not status.ready
        assert "has not answered" in (status.reason or "")
        with pytest.raises(EngineTimeoutError, match="has not answered"):  # at once, without waiting for the stuck call
            await engine.tokens(IMAGE, model=NOT_THERE)
        network.may_end.set()
        await asyncio.wait(set(engine._thread.calls))
        assert (await engine.ready()).ready
        assert (await engine.tokens(IMAGE, model=NOT_THERE)).shape == (1, 729, 768)
        await engine.close()

    asyncio.run(asyncio.wait_for(run(), 30))


def test_a_cancelled_caller_returns_at_once_and_the_next_call_waits_for_the_running_one(tmp_path: Path) -> None:
    async def run() -> None:
        engine, network = blocked(tmp_path)
        first = asyncio.ensure_future(engine.tokens(IMAGE, model=NOT_THERE))
        assert await asyncio.to_thread(network.entered.wait, 20)
        first.cancel()
        await asyncio.wait([first])
        assert first.cancelled()
        second = asyncio.ensure_future(engine.tokens(IMAGE, model=NOT_THERE))
        await asyncio.sleep(0.05)
        assert not second.done()
        network.may_end.set()
        assert (await second).shape == (1, 729, 768)
        await engine.close()

    asyncio.run(asyncio.wait_for(run(), 30))


def test_a_stuck_engine_can_be_closed(tmp_path: Path) -> None:
    async def run() -> None:
        engine, network = blocked(tmp_path, engine_timeout_s=0.05)
        with pytest.raises(EngineTimeoutError):
            await engine.tokens(IMAGE, model=NOT_THERE)
        await engine.close()
        assert (await engine.ready()).reason is not None
        network.may_end.set()

    asyncio.run(asyncio.wait_for(run(), 30))
