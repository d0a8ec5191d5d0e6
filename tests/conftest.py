import gc
import hashlib
import importlib.metadata
import importlib.util
import logging
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import structlog
from filelock import FileLock
from hypothesis import settings

PROJECT = Path(__file__).resolve().parent.parent

# Read once, when torch and numpy are loaded, here and in processes that tests start: waiting threads do not spin. Those
# of OpenBLAS always do, and beside other workers take more time than the one that computes.
os.environ.setdefault("OMP_WAIT_POLICY", "passive")
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")


@pytest.fixture(autouse=True)
def _no_log_handler_is_left() -> Iterator[None]:
    """Remove what `logs.configure` installed: its stream, the captured stderr, is closed after the test."""
    yield
    root = logging.getLogger()
    for handler in [each for each in root.handlers if isinstance(each.formatter, structlog.stdlib.ProcessorFormatter)]:
        root.removeHandler(handler)


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--all", action="store_true", help="hold the promises over their full numbers (an hour or more)")


def pytest_configure(config: pytest.Config) -> None:
    """Draw the same examples in every ordinary run, so that it says what changed; draw anew with `--all`.

    Take SIGINT also where the run is a background job of a shell: it is ignored there, and in all that a test starts.
    """
    if signal.getsignal(signal.SIGINT) == signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    settings.register_profile("ordinary", derandomize=True, database=None)
    settings.register_profile("all")
    settings.load_profile("all" if config.getoption("--all") else "ordinary")


@pytest.hookimpl(wrapper=True)
def pytest_collection() -> Iterator[None]:
    """Collect no garbage while modules and tests are loaded, which stay: it takes half of the time."""
    gc.disable()
    try:
        return (yield)
    finally:
        gc.freeze()
        gc.enable()


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Print what tests recorded as `figures`, such as the layers and the size of an engine."""
    reports = [report for found in terminalreporter.stats.values() for report in found if hasattr(report, "nodeid")]
    figures = [
        (report.nodeid.rsplit("::", 1)[-1], value)
        for report in reports
        if getattr(report, "when", None) == "call"
        for name, value in report.user_properties
        if name == "figures"
    ]
    if figures:
        terminalreporter.section("figures")
        for test, value in sorted(figures):
            terminalreporter.write_line(f"{test}: {value}")


_SLOWEST_FIRST = ("promises", "triton", "monitoring", "export", "e2e", "evaluation")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Run the slow folders first, so that no worker is left with them at the end."""

    def place(item: pytest.Item) -> int:
        folder = item.path.relative_to(PROJECT / "tests").parts[0]
        return _SLOWEST_FIRST.index(folder) if folder in _SLOWEST_FIRST else len(_SLOWEST_FIRST)

    items.sort(key=place)


@pytest.fixture(scope="session")
def full(pytestconfig: pytest.Config) -> bool:
    """Whether `--all` asks for the full numbers."""
    return bool(pytestconfig.getoption("--all"))


@pytest.fixture(scope="session")
def model_repository() -> Path:
    """A model repository with `dinov2_vits14/1`, exported from seed:0 at full size; kept for the next run."""
    return exported("seed:0")


@pytest.fixture(scope="session")
def small_model_repository() -> Path:
    """Its first two blocks over 8 × 8 tokens: a tenth of the time, for tests where neither counts."""
    return exported("seed:0", options=("--input-size", "112", "--layers", "0,1", "--tensorrt-dtype", "fp16"))


@pytest.fixture(scope="session")
def real_model_repository() -> Path:
    """The same as `model_repository` from real weights, if there are any: DINOV2_WEIGHTS, or ../shared/weights."""
    return _exported_from_real_weights()


@pytest.fixture(scope="session")
def small_real_model_repository() -> Path:
    """All its blocks over 8 × 8 tokens: a tenth of the time."""
    return _exported_from_real_weights("--input-size", "112")


def _exported_from_real_weights(*options: str) -> Path:
    named = os.environ.get("DINOV2_WEIGHTS", "")
    weights = Path(named) if named else PROJECT.parent / "shared" / "weights" / "dinov2_vits14.safetensors"
    if not weights.is_file():
        pytest.skip(f"no real weights: {weights.name} is not in ../shared/weights and DINOV2_WEIGHTS names no file")
    return exported(str(weights.resolve()), weights.read_bytes(), options)


def exported(weights: str, content: bytes = b"", options: tuple[str, ...] = ()) -> Path:
    """Export once for these weights, options and this exporter, kept under .cache."""
    if importlib.util.find_spec("timm") is None:
        pytest.skip("no model to test with: it is exported here, which needs the export extra")
    # Modules that write Triton's configuration do not change the graph.
    sources = [path for path in sorted((PROJECT / "export").glob("*.py")) if not path.name.startswith("triton_")]
    repository = kept_folder("test-model", sources, content or weights.encode(), " ".join(options).encode())
    with FileLock(f"{repository}.lock"):
        if not (repository / "dinov2_vits14" / "1" / "model.json").is_file():
            # In a separate process, since the gateway under test must not import torch.
            subprocess.run(
                [sys.executable, "-m", "export", "--weights", weights, "--repository", repository, *options],
                cwd=PROJECT,
                check=True,
            )
    return repository


def copied_version(version: Path, folder: Path) -> Path:
    """Copy a version of a kept repository into `folder`, for a test that writes into it."""
    copy = folder / version.parent.name / version.name
    shutil.copytree(version, copy)
    return copy


def kept_folder(kind: str, sources: list[Path], *given: bytes) -> Path:
    """Return a folder under .cache, named by these sources, inputs and installed packages."""
    sources = [*sources, *sorted((PROJECT / "gateway" / "networks").glob("*_description.py"))]
    key = hashlib.sha256(b"".join(path.read_bytes() for path in sources))
    for each in given:
        key.update(each)
    for package in ("torch", "timm", "onnx", "onnxscript"):
        key.update(importlib.metadata.version(package).encode())
    folder = PROJECT / ".cache" / kind / key.hexdigest()[:16]
    folder.mkdir(parents=True, exist_ok=True)
    return folder
