"""Clients of the API against a real gateway."""

from tests.e2e.conftest import gateway, launch, pytest_runtest_makereport

__all__ = ["gateway", "launch", "pytest_runtest_makereport"]
