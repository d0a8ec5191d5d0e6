import numpy as np
import pytest

from postprocess.spatial_weights import EmptyBoxError, box_weights, clamp_box, variance_weights


def test_whole_tokens_inside_and_outside_get_the_two_weights() -> None:
    weights = box_weights((32, 96, 0, 64), 128, (4, 4), outside=0.1, inside=2.0)
    expected = np.full((4, 4), 0.1, np.float32)
    expected[1:3, 0:2] = 2.0
    assert weights.dtype == np.float32
    np.testing.assert_array_equal(weights, expected)


def test_a_token_on_the_edge_gets_its_share() -> None:
    weights = box_weights((0, 48, 32, 128), 128, (4, 4), outside=0, inside=1)
    np.testing.assert_allclose(weights[0], [0, 1, 1, 1])
    np.testing.assert_allclose(weights[1], [0, 0.5, 0.5, 0.5])
    np.testing.assert_allclose(weights[2:], 0)
    corner = box_weights((0, 16, 0, 16), 128, (4, 4), outside=0, inside=1)
    assert corner[0, 0] == 0.25


def test_a_box_smaller_than_a_token_still_counts() -> None:
    weights = box_weights((10, 14, 10, 14), 128, (4, 4), outside=0.1, inside=2.0)
    assert weights[0, 0] == pytest.approx(0.1 + 1.9 * 16 / 1024)
    assert (weights.ravel()[1:] == np.float32(0.1)).all()


def test_the_mean_weight_is_that_of_the_box_whatever_the_grid() -> None:
    for hw in ((27, 27), (1, 1), (5, 9)):
        weights = box_weights((13, 77, 40, 101), 128, hw, outside=0.1, inside=2.0)
        assert weights.mean() == pytest.approx(0.1 + 1.9 * 64 * 61 / 128**2)


def test_coordinates_are_clamped() -> None:
    assert clamp_box((-5, 500, 0.5, 128), 128) == (0, 128, 0.5, 128)
    whole = box_weights((-100, 1e9, -1, 129), 128, (3, 3), outside=0.1, inside=2.0)
    assert (whole == 2).all()


@pytest.mark.parametrize("box", [(10, 10, 0, 5), (0, 5, 9, 8), (200, 300, 0, 5), (0, 5, -20, -10), (128, 200, 0, 5)])
def test_an_empty_box_is_refused_and_shown(box: tuple[float, float, float, float]) -> None:
    shown = rf"\[{', '.join(f'{edge:g}' for edge in box)}\]"
    with pytest.raises(EmptyBoxError, match=shown):
        clamp_box(box, 128)
    with pytest.raises(EmptyBoxError):
        box_weights(box, 128, (4, 4), outside=0, inside=1)


def test_the_steadiest_token_gets_the_largest_weight() -> None:
    spread = np.array([[0.0, 0.25], [0.5, 1.0]], np.float32)
    weights = variance_weights(spread, 0.1, 2.1)
    assert weights.dtype == np.float32
    np.testing.assert_allclose(weights, [[2.1, 1.6], [1.1, 0.1]], rtol=1e-6)


def test_an_even_spread_weighs_every_token_alike() -> None:
    assert (variance_weights(np.full((2, 3), 0.2, np.float32), 0.1, 2.0) == 2).all()


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_a_spread_that_is_not_finite_is_refused(bad: float) -> None:
    with pytest.raises(ValueError, match="not finite"):
        variance_weights(np.array([[0.1, bad]], np.float32), 0.1, 2.0)
