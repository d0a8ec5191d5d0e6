import math

import numpy as np
import pytest

from gateway.calibration import choose_threshold


def test_without_ng_the_threshold_is_p99_of_ok_plus_the_margin() -> None:
    ok = [0.1, 0.2, 0.3, 0.4, 0.5]
    chosen = choose_threshold(ok, [], margin=0.0)
    assert chosen.p99_ok == pytest.approx(0.496)
    assert chosen.threshold == chosen.p99_ok
    assert chosen.p5_ng is None
    assert chosen.separable is None
    assert chosen.ok_above == 1  # 0.5: what one in a hundred means with five scores
    assert choose_threshold(ok, [], margin=0.05).threshold == pytest.approx(0.546)


def test_one_ok_score_is_its_own_threshold_and_passes() -> None:
    chosen = choose_threshold([0.4], [], margin=0.0)
    assert chosen.threshold == 0.4
    assert chosen.ok_above == 0


@pytest.mark.parametrize("ng", [[0.9], [0.8, 0.9], [0.7, 0.8, 0.9]])
def test_with_ng_that_separate_the_threshold_stands_in_the_middle_of_the_gap(ng: list[float]) -> None:
    ok = [0.1, 0.2, 0.3]
    chosen = choose_threshold(ok, ng, margin=0.5)  # the margin is for OK alone
    p99, p5 = np.percentile(ok, 99), np.percentile(ng, 5)
    assert chosen.p99_ok == pytest.approx(p99)
    assert chosen.p5_ng == pytest.approx(p5)
    # An OK score above p99 pushes the lower end up, an NG score below p5 the upper end down: none is misjudged.
    assert chosen.threshold == pytest.approx((p99 + p5) / 2)
    assert (chosen.ok_above, chosen.ng_below, chosen.separable) == (0, 0, True)


def test_scores_between_the_percentiles_move_the_threshold_to_the_fewest_errors() -> None:
    # p99 = 0.1 and p5 = 1.0 by weight of numbers, with one straying OK score at 0.8.
    ok = [0.1] * 200 + [0.8]
    chosen = choose_threshold(ok, [1.0], margin=0.0)
    assert 0.8 <= chosen.threshold < 1.0
    assert (chosen.ok_above, chosen.ng_below) == (0, 0)


def test_overlap_takes_the_least_balanced_error_and_says_so() -> None:
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
