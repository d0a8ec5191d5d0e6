"""Networks of versions: compiled when first needed, some kept, one thread for all."""

import asyncio
from pathlib import Path

import numpy as np
import pytest

from gateway.errors import EngineUnavailableError
from gateway.networks.model_description import ModelDescription, read_description
from gateway.networks.registry import EngineRegistry, create_engine_registry
from gateway.settings import Settings


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

    run(create_engine_registry(settings_for(tmp_path, networks_kept=2)), work)


def test_a_graph_that_cannot_be_compiled_raises_and_the_next_request_compiles_again(tmp_path: Path, given) -> None:
    model, graph = given

    async def work(engines: EngineRegistry) -> None:
        broken = await engines.engine_for(model, b"no graph")
        with pytest.raises(EngineUnavailableError):
            await broken.tokens(np.zeros((1, 8, 8, 3), np.uint8), model=model)
        assert (await engines.engine_for(model, graph)).status.ready

    run(create_engine_registry(settings_for(tmp_path)), work)
