import pytest
import scipy

from postprocess.binomial import all_limits, limits, lower_limit, upper_limit


def test_the_limits_are_those_of_the_published_table() -> None:
    assert limits(1, 20, 0.95) == pytest.approx((0.00127, 0.24873), abs=6e-6)
    assert limits(10, 100, 0.95) == pytest.approx((0.04900, 0.17622), abs=6e-6)


def test_without_hits_the_lower_limit_is_zero_and_with_hits_only_the_upper_is_one() -> None:
    assert (lower_limit(0, 5, 0.95), limits(0, 5, 0.95)[0]) == (0, 0)
    assert (upper_limit(5, 5, 0.95), limits(5, 5, 0.95)[1]) == (1, 1)


def test_one_sided_limits_solve_the_power_equation() -> None:
    assert upper_limit(0, 10, 0.95) == pytest.approx(1 - 0.05**0.1)  # (1 - p)^10 = 0.05
    assert lower_limit(10, 10, 0.95) == pytest.approx(0.05**0.1)  # p^10 = 0.05


@pytest.mark.parametrize("n", [1, 7, 40, 500])
def test_the_limits_are_those_of_scipys_exact_test(n: int) -> None:
    low, high = all_limits(n, 0.95)
    for k in {0, 1, n // 3, n - 1, n}:
        exact = scipy.stats.binomtest(k, n).proportion_ci(0.95, "exact")
        assert limits(k, n, 0.95) == pytest.approx((exact.low, exact.high), abs=1e-9) == (low[k], high[k])
        for alternative, limit in (("greater", lower_limit), ("less", upper_limit)):
            exact = scipy.stats.binomtest(k, n, alternative=alternative).proportion_ci(0.9, "exact")
            assert limit(k, n, 0.9) == pytest.approx(exact.low if alternative == "greater" else exact.high, abs=1e-9)
