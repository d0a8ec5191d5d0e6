import pytest

from postprocess.binomial import lower_limit


def test_the_lower_limit_of_a_share_is_that_of_the_definition() -> None:
    # All of n hits: the share p with p^n = 1 - confidence.
    assert lower_limit(3, 3, 0.875) == pytest.approx(0.5)
    # One of n hits: 1 - (1 - p)^n = 1 - confidence.
    assert lower_limit(1, 2, 0.75) == pytest.approx(1 - 0.75**0.5)
    assert lower_limit(0, 10, 0.95) == 0.0
