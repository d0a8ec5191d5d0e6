"""Token models of several input sizes side by side: found by their names, loaded when an ROI needs them."""

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from gateway.errors import EngineUnavailableError, ModelMismatchError
from gateway.networks.registry import EngineRegistry, create_engine_registry
from gateway.settings import Settings
from tests.export.tiny_model import description, write_version


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    """A repository with the configured model, of 28 pixels, and one of 56; and with folders that are neither."""
    folder = tmp_path / "repository"
    write_version(folder / "dinov2_vits14" / "1")
    write_version(folder / "dinov2_vits14_56" / "1", grid=4)
    (folder / "dinov2_vits14_84").mkdir()
    write_version(folder / "dinov2_vits14_old" / "1", factor=2)
    return folder


def images(side: int) -> np.ndarray:
    return np.zeros((1, side, side, 3), np.uint8)


def run(repository: Path, work: Callable[[EngineRegistry], Awaitable[None]], **changes: Any) -> None:
    cache = repository.parent / "cache"
    settings = Settings(_env_file=None, model_repository=repository, cache_dir=cache, precision="f32", **changes)

    async def bounded() -> None:
        engines = create_engine_registry(settings)
        try:
            await engines.token_engine.start()
            await asyncio.wait_for(work(engines), 60)
        finally:
            await engines.close()

    asyncio.run(bounded())


def test_a_model_of_another_size_is_loaded_once_and_only_when_it_is_needed(repository: Path) -> None:
    async def work(engines: EngineRegistry) -> None:
        assert await engines.token_engine_of(None) is await engines.token_engine_of(28) is engines.token_engine
        assert engines.input_sizes() == [28, 56]
        assert engines.n_bytes == 0
        one, other = await asyncio.gather(engines.token_engine_of(56), engines.token_engine_of(56))
        assert one is other
        assert [(state.name, state.ready) for state in await engines.states()] == [("dinov2_vits14_56", True)]
        for engine in (one, engines.token_engine):
            size, n_tokens = engine.model.input_size, engine.model.n_tokens
            tokens = await engines.tokens(images(size), model=engine.model)
            assert (size, tokens.shape) in [(28, (1, 4, 3)), (56, (1, 16, 3))]
            assert tokens.shape[1] == n_tokens

    run(repository, work)


def test_the_size_that_was_asked_for_at_the_export_names_the_configured_model_too(tmp_path: Path) -> None:
    model = write_version(tmp_path / "repository" / "dinov2_vits14" / "1").model_copy(update={"scales": (30,)})
    (tmp_path / "repository" / "dinov2_vits14" / "1" / "model.json").write_text(model.model_dump_json())

    async def work(engines: EngineRegistry) -> None:
        assert await engines.token_engine_of(30) is engines.token_engine

    run(tmp_path / "repository", work)


@pytest.mark.parametrize("size", [84, 112])
def test_a_size_without_a_model_is_refused_and_the_sizes_that_are_served_are_named(repository: Path, size: int) -> None:
    async def work(engines: EngineRegistry) -> None:
        with pytest.raises(ModelMismatchError, match=f"input size {size} is served; there are 28, 56") as refused:
            await engines.token_engine_of(size)
        assert refused.value.hint.endswith(f"python -m export --input-size {size} --name dinov2_vits14_{size}")
        assert engines.n_bytes == 0

    run(repository, work)


def test_a_model_that_cannot_be_loaded_says_why_and_is_loaded_again_once_it_is_whole(repository: Path) -> None:
    graph = repository / "dinov2_vits14_56" / "1" / "model.onnx"
    whole = graph.read_bytes()
    graph.write_bytes(whole[:-1])

    async def work(engines: EngineRegistry) -> None:
        with pytest.raises(EngineUnavailableError, match=r"model\.onnx is damaged"):
            await engines.token_engine_of(56)
        graph.write_bytes(whole)
        assert (await engines.token_engine_of(56)).status.ready

    run(repository, work)


def test_a_size_that_triton_does_not_serve_is_refused_and_not_asked_for_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("tritonclient.grpc", reason="needs the triton extra")
    from tritonclient.utils import InferenceServerException

    from gateway.networks.triton import server
    from tests.gateway.networks.stand_in_triton import MODEL, Server

    asked: list[str] = []

    class TwoModels(Server):
        async def get_model_metadata(self, name: str, **rest: object) -> Any:
            asked.append(name)
            if name == "dinov2_vits14_56":
                self.model = MODEL.model_copy(update={"input_size": 56, "fingerprint": "56"})
            elif name != "dinov2_vits14":
                raise InferenceServerException(f"Request for unknown model: '{name}' is not found", "NOT_FOUND")
            return await super().get_model_metadata(name, **rest)

    monkeypatch.setattr(server, "connect", lambda *_: TwoModels())

    async def work(engines: EngineRegistry) -> None:
        engine = await engines.token_engine_of(56)
        assert engine.model.input_size == 56
        assert (await engines.tokens(images(56), model=engine.model)).shape == (1, 1, 4)
        kept = engines.n_bytes
        with pytest.raises(ModelMismatchError, match=r"there are 14, 56 \(.*unknown model: 'dinov2_vits14_112'"):
            await engines.token_engine_of(112)
        assert engines.n_bytes == kept
        times = asked.count("dinov2_vits14_112")
        await asyncio.sleep(0.6)  # longer than between two questions to a server that is away
        assert asked.count("dinov2_vits14_112") == times

    run(tmp_path / "none", work, engine="triton", triton_shared_memory="off")


def test_a_folder_with_another_name_is_no_model_of_a_size(repository: Path) -> None:
    described = description(input_size=70)
    (repository / "dinov2_vits14_070" / "1").mkdir(parents=True)
    (repository / "dinov2_vits14_070" / "1" / "model.json").write_text(described.model_dump_json())

    async def work(engines: EngineRegistry) -> None:
        assert engines.input_sizes() == [28, 56]

    run(repository, work)


def test_a_model_whose_name_has_the_number_of_another_size_is_not_taken_for_it(repository: Path) -> None:
    write_version(repository / "dinov2_vits14_112" / "1", grid=4)

    async def work(engines: EngineRegistry) -> None:
        assert engines.input_sizes() == [28, 56]
        with pytest.raises(ModelMismatchError, match=r"112 is served; there are 28, 56 \(dinov2_vits14_112 has 56\)"):
            await engines.token_engine_of(112)

    run(repository, work)
