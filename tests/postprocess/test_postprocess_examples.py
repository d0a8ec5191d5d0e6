import doctest

import pytest

from postprocess import anomaly_map, regions, roi_mask, spatial_weights


@pytest.mark.parametrize(
    "module", [anomaly_map, regions, roi_mask, spatial_weights], ids=lambda module: module.__name__
)
def test_the_examples_in_docstrings_hold(module):
    failures, examples = doctest.testmod(module)

    assert examples > 0
    assert failures == 0
