import doctest
from types import ModuleType

import pytest

from gateway import calibration, contamination, ok_maps


@pytest.mark.parametrize("module", [calibration, contamination, ok_maps])
def test_the_examples_in_docstrings_are_true(module: ModuleType) -> None:
    results = doctest.testmod(module)
    assert results.attempted > 0
    assert results.failed == 0
