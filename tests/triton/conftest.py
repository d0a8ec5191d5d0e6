"""A real tritonserver, installed and started by scripts/triton, and models to serve with it."""

import hashlib
import platform
import subprocess
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path

import onnx
import pytest
from onnx import numpy_helper

from export.triton_options import ServingOptions
from gateway.networks.model_description import fingerprint_of, read_description
from tests.e2e.conftest import launch, pytest_runtest_makereport
from tests.export.tiny_model import write_version
from tests.triton.server import MODEL, SCRIPT, TritonServer, running_triton, serving_repository

__all__ = ["launch", "pytest_runtest_makereport"]  # a gateway that uses the server, as in tests/e2e

# Small queues, so that a test can fill them, but large enough for 16 clients and a fit.
SERVING = ServingOptions("python", inspect_queue_size=24, fit_queue_size=24, inspect_timeout_ms=100_000)

Launch = Callable[..., AbstractContextManager[TritonServer]]


@pytest.fixture(scope="session")
def triton_installed() -> None:
    """The real tritonserver. scripts/triton installs it if needed."""
    if platform.system() != "Linux" or platform.machine() != "x86_64":
        pytest.skip("the wheel of Triton supports only Linux on x86-64")
    done = subprocess.run(
        [SCRIPT, "--with", "wheel", "--prepare"], stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=1800
    )
    assert done.returncode == 0, done.stderr


@pytest.fixture(scope="session")
def served_repository(request: pytest.FixtureRequest) -> Path:
    """A model repository with the seeded export that is served: the small one, with --all the one of full size."""
    return request.getfixturevalue(
        "model_repository" if request.config.getoption("--all") else "small_model_repository"
    )


@pytest.fixture(scope="session")
def model_version(served_repository: Path) -> Path:
    """Its version folder."""
    return served_repository / MODEL / "1"


@pytest.fixture(scope="session")
def other_version(model_version: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Another model of the same shape: every second feature is negated and the fingerprint differs."""
    folder = tmp_path_factory.mktemp("other-model") / "1"
    folder.mkdir()
    graph = onnx.load(model_version / "model.onnx")
    (scale,) = [each for each in graph.graph.initializer if each.name == "norm.weight"]
    values = numpy_helper.to_array(scale).copy()
    values[::2] *= -1
    scale.CopyFrom(numpy_helper.from_array(values, scale.name))
    data = graph.SerializeToString(deterministic=True)
    model = read_description(model_version)
    graph_sha256 = hashlib.sha256(data).hexdigest()
    described = model.model_copy(
        update={"graph_sha256": graph_sha256, "fingerprint": fingerprint_of(model.weights.sha256, graph_sha256)}
    )
    (folder / "model.onnx").write_bytes(data)
    (folder / "model.json").write_text(described.model_dump_json(indent=2) + "\n")
    return folder


@pytest.fixture(scope="session")
def launch_triton(
    triton_installed: None, model_version: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Launch]:
    """Start a separate server: with launch_triton("name", options=…, versions=…, start=…) as server."""

    def launch(name, *arguments, options=SERVING, versions=None, serve=None, start=True):
        folder = tmp_path_factory.mktemp(name)
        repository = serving_repository(folder / "repository", versions or {1: model_version}, options, serve=serve)
        return running_triton(repository, folder / "triton.log", *arguments, start=start)

    return launch


@pytest.fixture(scope="session")
def triton_server(launch_triton: Launch) -> Iterator[TritonServer]:
    """The server that most tests share, with a tiny model of 28 pixels beside the first. A test must not change it."""
    with launch_triton("triton", start=False) as server:
        write_version(server.repository / f"{MODEL}_28" / "1", factor=1 / 256)
        server.start()
        yield server
