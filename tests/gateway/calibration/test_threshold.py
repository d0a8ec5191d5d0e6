import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.calibration.false_alarms import false_alarms
from gateway.calibration.threshold import choose_threshold


def test_without_ng_the_threshold_is_p99_of_ok_plus_the_margin() -> None:
    ok = [0.1, 0.2, 0.3, 0.4, 0.5]
    chosen = choose_threshold(ok, [], margin=0.0)
    assert chosen.p99_ok == pytest.approx(0.496)
    assert chosen.threshold == chosen.p99_ok
    assert chosen.p5_ng is None
    assert chosen.separable is None
    assert chosen.ok_above == 1  # 0.5: with five scores, one is above p99
    assert choose_threshold(ok, [], margin=0.05).threshold == pytest.approx(0.546)


def test_one_ok_score_is_its_own_threshold_and_passes() -> None:
    chosen = choose_threshold([0.4], [], margin=0.0)
    assert chosen.threshold == 0.4
    assert chosen.ok_above == 0


@pytest.mark.parametrize("ng", [[0.9], [0.8, 0.9], [0.7, 0.8, 0.9]])
def test_with_separable_ng_scores_the_threshold_is_the_lowest_that_rejects_no_ok(ng: list[float]) -> None:
    ok = [0.1, 0.2, 0.3]
    chosen = choose_threshold(ok, ng, margin=0.5)  # the margin is unused with NG scores
    p99, p5 = np.percentile(ok, 99), np.percentile(ng, 5)
    assert chosen.p99_ok == pytest.approx(p99)
    assert chosen.p5_ng == pytest.approx(p5)
    # No score is misjudged.
    step = (p5 - p99) / 20
    assert max(ok) <= chosen.threshold < max(ok) + step
    assert (chosen.ok_above, chosen.ng_below, chosen.separable) == (0, 0, True)


def test_scores_between_the_percentiles_move_the_threshold_to_the_fewest_errors() -> None:
    # p99 = 0.1 and p5 = 1.0; one OK score of 201 is 0.8.
    ok = [0.1] * 200 + [0.8]
    chosen = choose_threshold(ok, [1.0], margin=0.0)
    assert 0.8 <= chosen.threshold < 1.0
    assert (chosen.ok_above, chosen.ng_below) == (0, 0)


def test_scores_that_overlap_give_the_smallest_balanced_error_and_are_not_separable() -> None:
    # Candidates lie between p5 of NG (0.3) and p99 of OK (0.694). At 0.694 two NG pass and one OK is rejected; below
    # 0.6 both OK at 0.6 and 0.7 are rejected, and one NG of two passes.
    ok, ng = [0.1, 0.6, 0.7], [0.3, 0.65]
    chosen = choose_threshold(ok, ng, margin=0.0)
    assert chosen.separable is False
    assert 0.3 <= chosen.threshold <= chosen.p99_ok
    balanced = chosen.ok_above / 3 + chosen.ng_below / 2
    every = [
        sum(s > t for s in ok) / 3 + sum(s <= t for s in ng) / 2 for t in np.linspace(chosen.p5_ng or 0, 0.698, 21)
    ]
    assert balanced == pytest.approx(min(every))
    assert (chosen.ok_above, chosen.ng_below) == (1, 1)


def test_equal_scores_on_both_sides_are_not_separable() -> None:
    chosen = choose_threshold([0.5, 0.5], [0.5], margin=0.0)
    assert chosen.separable is False
    assert chosen.threshold == 0.5
    assert (chosen.ok_above, chosen.ng_below) == (0, 1)


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_a_score_that_is_not_finite_is_refused(bad: float) -> None:
    with pytest.raises(ValueError, match="finite"):
        choose_threshold([0.1, bad], [], margin=0.0)
    with pytest.raises(ValueError, match="finite"):
        choose_threshold([0.1], [bad], margin=0.0)


def test_no_ok_score_is_refused() -> None:
    with pytest.raises(ValueError, match="at least one OK"):
        choose_threshold([], [0.9], margin=0.0)


@pytest.mark.parametrize(
    ("n", "rate", "rank"),
    [
        (4, 0.2, 4),  # 5 × 0.8 = 4
        (9, 0.2, 8),  # 10 × 0.8 = 8
        (10, 0.2, 9),  # 11 × 0.8 = 8.8
        (19, 0.05, 19),  # 20 × 0.95 = 19, but not in binary floating point
        (99, 0.01, 99),
        (120, 0.1, 109),  # 121 × 0.9 = 108.9
    ],
)
def test_a_requested_rate_gives_the_score_of_the_conformal_rank(n: int, rate: float, rank: int) -> None:
    scores = [i / 100 for i in range(n, 0, -1)]  # the i-th smallest is i / 100
    chosen = choose_threshold(scores, [], margin=0.5, false_alarm_rate=rate)  # the margin is used with p99 only
    assert chosen.method == "conformal"
    assert chosen.threshold == rank / 100
    assert (chosen.ok_above, chosen.n_ok_needed) == (n - rank, 0)
    assert false_alarms(chosen.ok_above, n).rate <= rate


@pytest.mark.parametrize(("n", "rate", "missing"), [(1, 0.1, 8), (3, 0.2, 1), (18, 0.05, 1), (120, 0.001, 879)])
def test_too_few_scores_for_a_rate_give_the_largest_score_and_the_number_missing(
    n: int, rate: float, missing: int
) -> None:
    chosen = choose_threshold([i / 1000 for i in range(n)], [], margin=0.0, false_alarm_rate=rate)
    assert chosen.threshold == (n - 1) / 1000
    assert chosen.n_ok_needed == missing
    assert choose_threshold([0.5] * (n + missing), [], 0.0, rate).n_ok_needed == 0
    assert choose_threshold([0.5] * (n + missing - 1), [], 0.0, rate).n_ok_needed == 1


@given(values=st.lists(st.integers(0, 9), min_size=3, max_size=30), percent=st.integers(1, 99))
def test_at_most_the_requested_rate_of_exchangeable_scores_is_above(values: list[int], percent: int) -> None:
    # Each value in turn is the unseen one: this is what exchangeable means, also for ties.
    rejected = 0
    for i, unseen in enumerate(values):
        chosen = choose_threshold(values[:i] + values[i + 1 :], [], 0.0, percent / 100)
        if chosen.n_ok_needed:
            return
        rejected += unseen > chosen.threshold
    assert rejected <= percent / 100 * len(values) + 1e-9


def test_with_ng_scores_a_requested_rate_changes_nothing() -> None:
    asked = choose_threshold([0.1, 0.2], [0.9], 0.0, false_alarm_rate=0.5)
    assert asked == choose_threshold([0.1, 0.2], [0.9], 0.0)
    assert asked.n_ok_needed is None


@pytest.mark.parametrize("rate", [None, 0.1])
def test_equal_scores_are_their_own_threshold_and_pass(rate: float | None) -> None:
    chosen = choose_threshold([0.5] * 20, [], 0.0, rate)
    assert (chosen.threshold, chosen.ok_above) == (0.5, 0)


@pytest.mark.parametrize("rate", [0.0, 1.0, -0.1, math.nan])
def test_a_rate_out_of_range_is_refused(rate: float) -> None:
    with pytest.raises(ValueError, match="between 0 and 1"):
        choose_threshold([0.1], [], 0.0, rate)
