"""Prometheus's own programs, and what they look at: a real gateway and the real Triton."""

import pytest

from tests.debian import program
from tests.e2e.conftest import launch, pytest_runtest_makereport
from tests.triton.conftest import launch_triton, model_version, triton_installed

__all__ = ["launch", "launch_triton", "model_version", "pytest_runtest_makereport", "triton_installed"]


@pytest.fixture(scope="session")
def promtool() -> str:
    return program("promtool", "prometheus")


@pytest.fixture(scope="session")
def prometheus() -> str:
    return program("prometheus", "prometheus")
