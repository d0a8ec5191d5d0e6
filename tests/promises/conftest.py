"""The promises of docs/promises.md, each tested with real faults.

The ordinary run holds a sample of each; `scripts/test --all` holds the full numbers, by the same code.
"""

import pytest

from tests.e2e.conftest import launch, pytest_runtest_makereport

__all__ = ["launch", "pytest_runtest_makereport"]


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Print what the tests measured, for docs/promises.md and for comparison."""
    # The teardown's report comes last, and includes the figures of fixtures.
    reports = [report for kind in ("", "error") for report in terminalreporter.getreports(kind)]
    measured = [
        (report.nodeid, *pair) for report in reports if report.when == "teardown" for pair in report.user_properties
    ]
    if measured:
        terminalreporter.section("measured")
    for nodeid, name, value in measured:
        terminalreporter.write_line(f"{nodeid.rpartition('::')[2]}: {name}: {value}")
