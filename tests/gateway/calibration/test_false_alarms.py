import numpy as np
import pytest

from gateway.calibration.false_alarms import false_alarms
from gateway.calibration.threshold import choose_threshold


@pytest.mark.parametrize(
    ("n_above", "n", "rate", "low", "high"),
    [
        # One score is its own threshold: a second score is above it with probability 1/2.
        (0, 1, 1 / 2, 0, 0.975),
        (1, 1, 1, 0.025, 1),
        (1, 2, 2 / 3, 1 - 0.975**0.5, 0.975**0.5),
        (0, 10, 1 / 11, 0, 1 - 0.025**0.1),  # (1 - high)^10 = 0.025
        (1, 20, 2 / 21, 0.00127, 0.24873),  # the published table of Clopper-Pearson limits
        (10, 100, 11 / 101, 0.04900, 0.17622),
    ],
)
def test_the_expected_rate_and_its_interval(n_above: int, n: int, rate: float, low: float, high: float) -> None:
    found = false_alarms(n_above, n)
    assert found.rate == pytest.approx(rate)
    assert (found.low, found.high) == pytest.approx((low, high), abs=6e-6)


def test_leave_one_out_scores_bound_the_rate_only_from_above() -> None:
    found = false_alarms(1, 2, err_high=True)
    assert (found.rate, found.low) == (2 / 3, 0)
    assert found.high == pytest.approx(0.95**0.5)  # one-sided: high² = 0.95
    assert false_alarms(0, 10, err_high=True).high == pytest.approx(1 - 0.05**0.1)


def test_the_interval_covers_the_rate_of_a_threshold_at_an_order_statistic() -> None:
    # The scores are uniform: the false-alarm rate of a threshold t is 1 − t.
    rng = np.random.default_rng(0)
    covered = []
    for _ in range(2000):
        scores = rng.uniform(size=60)
        chosen = choose_threshold(scores.tolist(), [], 0.0, 0.1)
        found = false_alarms(chosen.ok_above, 60)
        covered.append(found.low <= 1 - chosen.threshold <= found.high)
    assert np.mean(covered) >= 0.95
