"""GATEWAY_RUNTIME=tensorrt-rtx: what it builds without a GPU, and what it says where one is missing."""

import asyncio
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from gateway.networks.embedded.engine import EmbeddedEngine
from gateway.networks.embedded.runtimes import CudaUnavailableError, OnnxRuntimeNetwork
from gateway.networks.embedded.tensorrt_rtx import (
    TensorRtRtxNetwork,
    build_engine,
    graph_for_tensorrt,
    keep,
    read_kept,
    require_tensorrt_rtx,
)
from gateway.networks.model_description import read_description
from gateway.settings import Settings
from tests.conftest import PROJECT, copied_version
from tests.export.tiny_model import write_version

MISSING = "TensorRT-RTX is not installed: pip install -c constraints.txt -e '.[trt-rtx]'"


def why_unusable() -> str | None:
    try:
        require_tensorrt_rtx()
    except CudaUnavailableError as error:
        return str(error)
    return None


@pytest.fixture
def without_gpu() -> None:
    pytest.importorskip("tensorrt_rtx", reason=MISSING)
    if why_unusable() is None:
        pytest.skip("this machine has a GPU")


def test_a_missing_package_is_named_with_the_remedy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "tensorrt_rtx", None)
    with pytest.raises(CudaUnavailableError, match=r"not installed .*install the trt-rtx extra"):
        require_tensorrt_rtx()


@pytest.mark.usefixtures("without_gpu")
def test_without_a_gpu_the_gateway_does_not_start_and_says_why(tmp_path: Path) -> None:
    environment = {**os.environ, "GATEWAY_RUNTIME": "tensorrt-rtx", "GATEWAY_PORT": "0"}
    done = subprocess.run(
        [sys.executable, "-m", "gateway"],
        cwd=PROJECT,
        env=environment | {"GATEWAY_MODELS_DIR": str(tmp_path)},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 2
    assert "error: GATEWAY_RUNTIME=tensorrt-rtx: CUDA finds no GPU here: " in done.stderr
    assert "Install a driver for CUDA 13, or leave GATEWAY_RUNTIME out" in done.stderr


@pytest.mark.usefixtures("without_gpu")
def test_no_other_runtime_takes_its_place(tmp_path: Path) -> None:
    write_version(tmp_path / "dinov2_vits14" / "1")
    settings = Settings(_env_file=None, model_repository=tmp_path, cache_dir=tmp_path, runtime="tensorrt-rtx")

    async def started() -> str | None:
        engine = EmbeddedEngine(settings)
        await engine.start()
        reason = engine.status.reason
        await engine.close()
        return reason

    assert "CUDA finds no GPU here" in (asyncio.run(started()) or "")


def test_the_graph_is_the_typed_one_of_the_version(small_model_repository: Path, tmp_path: Path) -> None:
    version = copied_version(small_model_repository / "dinov2_vits14" / "1", tmp_path)
    model = read_description(version)
    typed = version / "model.tensorrt-fp16.onnx"
    assert graph_for_tensorrt(version, model) == (typed.read_bytes(), "fp16")
    assert graph_for_tensorrt(b"of a student", model) == (b"of a student", "f32")
    typed.write_bytes(typed.read_bytes()[:-1])
    with pytest.raises(RuntimeError, match=r"model\.tensorrt-fp16\.onnx is damaged"):
        graph_for_tensorrt(version, model)
    with pytest.raises(RuntimeError, match="export --tensorrt-dtype fp16"):
        graph_for_tensorrt(version, model.model_copy(update={"typed_graphs": {}}))


def test_tensorrt_rtx_builds_the_engine_that_the_gateway_runs(tmp_path: Path) -> None:
    trt = pytest.importorskip("tensorrt_rtx", reason=MISSING)
    model = write_version(tmp_path / "1")
    graph = (tmp_path / "1" / "model.onnx").read_bytes()
    assert build_engine(graph, model, largest_batch=4, compute_capability=trt.ComputeCapability.SM89)
    with pytest.raises(RuntimeError, match="cannot read the graph"):
        build_engine(b"no graph", model, largest_batch=4)


def test_a_kept_file_that_is_damaged_is_made_again(tmp_path: Path) -> None:
    path = tmp_path / "folder" / "engine"
    assert read_kept(path) is None
    keep(path, b"engine")
    assert read_kept(path) == b"engine"
    path.write_bytes(path.read_bytes()[:-1])
    assert read_kept(path) is None


def test_the_tokens_are_those_of_onnx_runtime(small_model_repository: Path, tmp_path: Path) -> None:
    """On a machine with an RTX GPU. None has run it yet."""
    reason = why_unusable()
    if reason is not None:
        pytest.skip(reason)
    version = small_model_repository / "dinov2_vits14" / "1"
    model = read_description(version)
    shape = (3, model.input_size, model.input_size, 3)
    images = np.random.default_rng(0).integers(0, 255, shape, np.uint8, endpoint=True)
    expected = OnnxRuntimeNetwork(version, model, device="cpu").run(images)
    for _ in range(2):  # built, then from the cache
        tokens = TensorRtRtxNetwork(version, model, cache_dir=tmp_path).run(images)
        assert (tokens * expected).sum(axis=-1).min() > 0.999
