"""Clients of the API against a real gateway."""

from collections.abc import Iterator

import pytest

from tests.e2e.conftest import launch, pytest_runtest_makereport
from tests.e2e.gateway_process import Gateway

__all__ = ["launch", "pytest_runtest_makereport"]


@pytest.fixture(scope="session")
def gateway(launch, small_model_repository) -> Iterator[Gateway]:
    """A gateway with the small model: these tests check what is sent and read."""
    with launch("clients", model_repository=small_model_repository) as started:
        yield started
        crashes = started.log.read_text().count("Traceback")
    assert crashes == 0, "tracebacks in the gateway's log, which stands below"
