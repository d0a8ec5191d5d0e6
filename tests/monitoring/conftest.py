"""Prometheus, and the gateway and Triton that it scrapes."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.debian import program
from tests.e2e.conftest import launch, pytest_runtest_makereport
from tests.monitoring.site import Site, running_site
from tests.triton.conftest import launch_triton, model_version, triton_installed

__all__ = [
    "launch",
    "launch_triton",
    "model_version",
    "pytest_runtest_makereport",
    "triton_installed",
]


@pytest.fixture(scope="session")
def served_repository(small_model_repository: Path) -> Path:
    """The small network, also with `--all`: thousands of images are inspected, and its size changes nothing."""
    return small_model_repository


@pytest.fixture(scope="session")
def promtool() -> str:
    return program("promtool", "prometheus")


@pytest.fixture(scope="session")
def prometheus() -> str:
    return program("prometheus", "prometheus")


@pytest.fixture(scope="session")
def site(
    launch, launch_triton, prometheus: str, served_repository: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Site]:
    """The site of all tests. A test that breaks something repairs it."""
    with running_site(launch, launch_triton, prometheus, served_repository, tmp_path_factory.mktemp("site")) as it:
        yield it
