import numpy as np
import pytest

from gateway.learning.suspects import LIMIT, SMALLEST_N, find_suspects, robust_z

# Median 0.5, median absolute deviation 0.02: a robust standard deviation of 0.029652.
OK = [0.46, 0.47, 0.48, 0.48, 0.5, 0.5, 0.52, 0.52, 0.53, 0.54]


def test_robust_z_is_the_distance_from_the_median_in_scaled_absolute_deviations() -> None:
    assert robust_z(OK) == pytest.approx((np.array(OK) - 0.5) / (1.4826 * 0.02))


def test_an_image_far_above_the_others_is_a_suspect() -> None:
    assert find_suspects(OK) == []
    # With 0.7 among them the median stays 0.5 and the deviation 0.02.
    (suspect,) = find_suspects([*OK[:4], 0.7, *OK[4:]])
    assert suspect.index == 4
    assert suspect.score == 0.7
    assert suspect.robust_z == pytest.approx(0.2 / (1.4826 * 0.02))


def test_the_limit_is_five() -> None:
    sigma = 1.4826 * 0.02
    assert find_suspects([*OK, 0.5 + 4.99 * sigma]) == []
    assert len(find_suspects([*OK, 0.5 + 5.01 * sigma])) == 1
    assert LIMIT == 5


def test_of_clean_gumbel_scores_rarely_two_are_suspects() -> None:
    rng = np.random.default_rng(0)
    for n in (10, 40, 120):
        several = [len(find_suspects((1 + 0.05 * rng.gumbel(size=n)).tolist())) > 1 for _ in range(1000)]
        assert np.mean(several) < 0.07


def test_an_image_closer_to_the_others_than_most_is_no_suspect() -> None:
    assert find_suspects([*OK, 0.1]) == []


def test_the_worst_comes_first() -> None:
    assert [suspect.index for suspect in find_suspects([0.8, *OK, 1.0])] == [11, 0]


def test_fewer_than_ten_images_give_no_suspect() -> None:
    few = [*OK[: SMALLEST_N - 2], 0.9]
    assert len(few) == SMALLEST_N - 1
    assert find_suspects(few) == []
    assert len(find_suspects([*few, 0.5])) == 1
    assert find_suspects([]) == []


def test_near_copies_do_not_make_each_other_suspect() -> None:
    # The deviation is 0: 1 % of the median replaces it.
    assert find_suspects([0.5] * 20 + [0.524]) == []
    (suspect,) = find_suspects([0.5] * 20 + [0.526])
    assert suspect.robust_z == pytest.approx(5.2)


def test_scores_of_zero_give_no_suspect() -> None:
    assert find_suspects([0.0] * 12) == []
    assert find_suspects([0.0] * 12 + [1e-9]) == []


def test_never_more_than_half_are_suspects() -> None:
    rng = np.random.default_rng(0)
    for n in (10, 11, 40):
        scores = np.concatenate([rng.normal(0.5, 0.01, n - n // 2), rng.normal(2, 0.01, n // 2)])
        assert len(find_suspects(scores.tolist())) <= n // 2
