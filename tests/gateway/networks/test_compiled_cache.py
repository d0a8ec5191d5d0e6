"""The cache of compiled graphs: never a wrong network, and never a reason not to start."""

import logging
import os
from pathlib import Path

import numpy as np
import openvino
import pytest

from gateway.networks.embedded.runtimes import OpenVinoNetwork
from gateway.networks.model_description import read_description

SHARE_DAMAGED = 0.3


@pytest.fixture
def compilations(monkeypatch: pytest.MonkeyPatch) -> list[bool]:
    """For each compilation, whether OpenVINO loaded the graph from the cache."""
    loaded: list[bool] = []
    compile_model = openvino.Core.compile_model

    def counted(*arguments: object, **options: object) -> object:
        compiled = compile_model(*arguments, **options)
        loaded.append(bool(compiled.get_property("LOADED_FROM_CACHE")))
        return compiled

    monkeypatch.setattr(openvino.Core, "compile_model", counted)
    return loaded


def tokens(folder: Path, cache: Path | None) -> np.ndarray:
    model = read_description(folder)
    network = OpenVinoNetwork(folder, model, precision="f32", cache_dir=cache)
    return network.run(np.full((1, model.input_size, model.input_size, 3), 100, np.uint8))


@pytest.fixture
def version(small_model_repository: Path) -> Path:
    return small_model_repository / "dinov2_vits14" / "1"


@pytest.fixture
def expected(version: Path) -> np.ndarray:
    return tokens(version, None)


def compiled_file(cache: Path) -> Path:
    (path,) = cache.rglob("*.blob")
    return path


def test_the_second_start_loads_the_compiled_graph(tmp_path, version, expected, compilations) -> None:
    for _ in range(2):
        np.testing.assert_array_equal(tokens(version, tmp_path), expected)
    assert compilations == [False, True]


@pytest.mark.parametrize("damage", ["inside", "cut", "empty", "no checksum"])
def test_a_damaged_compiled_graph_is_compiled_again(
    tmp_path, version, expected, compilations, caplog, damage: str
) -> None:
    tokens(version, tmp_path)
    path = compiled_file(tmp_path)
    data = bytearray(path.read_bytes())
    if damage == "inside":
        start = int(len(data) * SHARE_DAMAGED)
        data[start : start + 100_000] = os.urandom(100_000)
    path.unlink()  # OpenVINO may have mapped it
    path.write_bytes(data if damage in ("inside", "no checksum") else data[:1000] if damage == "cut" else b"")
    if damage == "no checksum":
        path.with_name(f"{path.name}.sha256").unlink()
    with caplog.at_level(logging.WARNING):
        np.testing.assert_array_equal(tokens(version, tmp_path), expected)
    assert "is damaged or incomplete" in caplog.text
    np.testing.assert_array_equal(tokens(version, tmp_path), expected)
    assert compilations == [False, False, True]


def test_a_cache_folder_that_cannot_be_used_is_logged_and_the_network_runs(tmp_path, version, expected, caplog) -> None:
    (tmp_path / "file").write_text("not a folder")
    with caplog.at_level(logging.WARNING):
        np.testing.assert_array_equal(tokens(version, tmp_path / "file" / "cache"), expected)
    assert "cannot be used" in caplog.text


def test_precisions_and_models_have_folders_of_their_own(tmp_path, version) -> None:
    model = read_description(version)
    OpenVinoNetwork(version, model, precision="f32", cache_dir=tmp_path)
    OpenVinoNetwork(version, model, precision="bf16", cache_dir=tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == {
        f"{model.graph_sha256[:16]}-f32",
        f"{model.graph_sha256[:16]}-bf16",
    }
