"""Networks of versions: compiled when first needed, some kept, one thread for all."""

import asyncio
import weakref
from pathlib import Path

import numpy as np
import openvino
import pytest

from gateway.errors import EngineUnavailableError
from gateway.networks.embedded.runtimes import network_bytes
from gateway.networks.model_description import ModelDescription, read_description
from gateway.networks.registry import EngineRegistry, create_engine_registry
from gateway.settings import Settings
from tests.export.tiny_model import write_version


def settings_for(folder: Path, **changes: object) -> Settings:
    given = {"model_repository": folder / "none", "cache_dir": folder / "cache", "precision": "f32", **changes}
    return Settings(_env_file=None, **given)


@pytest.fixture
def given(small_model_repository: Path) -> tuple[ModelDescription, bytes]:
    """A model and its graph, as a version contains them."""
    folder = small_model_repository / "dinov2_vits14" / "1"
    return read_description(folder), (folder / "model.onnx").read_bytes()


def named(model: ModelDescription, fingerprint: str) -> ModelDescription:
    return model.model_copy(update={"fingerprint": fingerprint})


def run(engines: EngineRegistry, work) -> object:
    async def bounded() -> object:
        try:
            return await asyncio.wait_for(work(engines), 60)
        finally:
            await engines.close()

    return asyncio.run(bounded())


def test_concurrent_requests_for_a_model_compile_it_once(tmp_path: Path, given) -> None:
    model, graph = given

    async def work(engines: EngineRegistry) -> None:
        found = await asyncio.gather(*(engines.engine_for(model, graph) for _ in range(4)))
        assert all(engine is found[0] for engine in found)
        size = model.input_size
        tokens = await found[0].tokens(np.zeros((1, size, size, 3), np.uint8), model=model)
        assert tokens.shape == (1, model.n_tokens, model.dim)

    run(create_engine_registry(settings_for(tmp_path)), work)


def test_the_least_recently_used_network_is_dropped_and_compiled_again(tmp_path: Path, given) -> None:
    model, graph = given

    async def work(engines: EngineRegistry) -> None:
        first = await engines.engine_for(named(model, "a"), graph)
        second = await engines.engine_for(named(model, "b"), graph)
        assert await engines.engine_for(named(model, "a"), graph) is first
        await engines.engine_for(named(model, "c"), graph)
        assert await engines.engine_for(named(model, "a"), graph) is first
        assert await engines.engine_for(named(model, "b"), graph) is not second
        size = model.input_size
        image = np.zeros((1, size, size, 3), np.uint8)
        await second.tokens(image, model=named(model, "b"))  # a caller that holds a dropped engine can finish

    run(create_engine_registry(settings_for(tmp_path, network_cache_bytes=2 * network_bytes(model, len(graph)))), work)


@pytest.fixture
def compilations(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The graphs that OpenVINO compiled, by name."""
    names: list[str] = []
    compile_model = openvino.Core.compile_model

    def counted(core: openvino.Core, graph: openvino.Model, *rest: object) -> object:
        names.append(graph.friendly_name)
        return compile_model(core, graph, *rest)

    monkeypatch.setattr(openvino.Core, "compile_model", counted)
    return names


@pytest.mark.parametrize("count", [17, 100])
def test_a_rotation_of_students_that_fits_into_memory_compiles_each_once(
    tmp_path: Path, compilations: list[str], count: int
) -> None:
    write_version(tmp_path / "tiny" / "1")
    model = read_description(tmp_path / "tiny" / "1")
    graph = (tmp_path / "tiny" / "1" / "model.onnx").read_bytes()
    students = [named(model, f"student {i}") for i in range(count)]
    image = np.zeros((1, model.input_size, model.input_size, 3), np.uint8)

    async def work(engines: EngineRegistry) -> None:
        for _ in range(3):
            for student in students:
                engine = await engines.engine_for(student, graph)
                await engine.tokens(image, model=student)
        assert len(compilations) == count
        assert engines.n_bytes == count * network_bytes(model, len(graph))

    run(create_engine_registry(settings_for(tmp_path)), work)


def test_networks_beyond_the_memory_limit_are_freed_at_once(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    write_version(tmp_path / "tiny" / "1")
    model = read_description(tmp_path / "tiny" / "1")
    graph = (tmp_path / "tiny" / "1" / "model.onnx").read_bytes()
    limit = 3 * network_bytes(model, len(graph))

    async def work(engines: EngineRegistry) -> None:
        made = []
        for i in range(10):
            made.append(weakref.ref(await engines.engine_for(named(model, f"student {i}"), graph)))
            assert engines.n_bytes <= limit
        await asyncio.sleep(0)
        assert [engine() is not None for engine in made] == [False] * 7 + [True] * 3
        assert caplog.text.count("GATEWAY_NETWORK_CACHE_BYTES") == 1

    run(create_engine_registry(settings_for(tmp_path, network_cache_bytes=limit)), work)


def test_a_network_larger_than_the_limit_is_kept_while_it_is_the_only_one(tmp_path: Path, given) -> None:
    model, graph = given

    async def work(engines: EngineRegistry) -> None:
        assert await engines.engine_for(model, graph) is await engines.engine_for(model, graph)

    run(create_engine_registry(settings_for(tmp_path, network_cache_bytes=1)), work)


def test_a_graph_that_cannot_be_compiled_raises_and_the_next_request_compiles_again(tmp_path: Path, given) -> None:
    model, graph = given

    async def work(engines: EngineRegistry) -> None:
        broken = await engines.engine_for(model, b"no graph")
        with pytest.raises(EngineUnavailableError):
            await broken.tokens(np.zeros((1, 8, 8, 3), np.uint8), model=model)
        assert (await engines.engine_for(model, graph)).status.ready

    run(create_engine_registry(settings_for(tmp_path)), work)
