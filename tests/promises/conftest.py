"""The promises of the README's table, each held by faults that really happen.

The ordinary run holds a sample of each; `scripts/test --all` holds the full numbers, by the same code.
"""

import pytest

from tests.e2e.conftest import launch, pytest_runtest_makereport

__all__ = ["launch", "pytest_runtest_makereport"]


@pytest.fixture(scope="session")
def full(pytestconfig: pytest.Config) -> bool:
    """Whether the full numbers were asked for."""
    return bool(pytestconfig.getoption("--all"))
