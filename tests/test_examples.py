"""The examples in docstrings are true."""

import doctest
import importlib
from pathlib import Path

import pytest

PROJECT = Path(__file__).resolve().parent.parent
MODULES = [
    ".".join(path.relative_to(PROJECT).with_suffix("").parts)
    for package in ("command_line", "gateway", "postprocess")
    for path in sorted((PROJECT / package).rglob("*.py"))
    if ">>> " in path.read_text()
]


@pytest.mark.parametrize("module", MODULES)
def test_the_examples_in_docstrings_are_true(module: str) -> None:
    results = doctest.testmod(importlib.import_module(module))
    assert results.attempted > 0
    assert results.failed == 0
