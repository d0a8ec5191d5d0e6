import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from postprocess.anomaly_map import anomaly_map, blur, cells_inside, score, score_by, top_mean, upsample

DISTANCES = np.array([0, 1, 2, 3, 4, 5], np.float32)

distance = st.floats(0, 2, width=32, allow_subnormal=False)
maps = hnp.arrays(np.float32, hnp.array_shapes(min_dims=2, max_dims=2, max_side=12), elements=distance)


def test_distances_fill_the_token_grid_row_by_row():
    grid = anomaly_map(DISTANCES, (2, 3))

    assert grid.tolist() == [[0, 1, 2], [3, 4, 5]]
    assert grid.dtype == np.float32


def test_weights_multiply_each_token_and_leave_the_distances_alone():
    weights = np.array([[1, 0, 0.5], [1, 1, 2]], np.float32)

    assert anomaly_map(DISTANCES, (2, 3), weights).tolist() == [[0, 0, 1], [3, 4, 10]]
    assert DISTANCES.tolist() == [0, 1, 2, 3, 4, 5]


@pytest.mark.parametrize(
    ("token_hw", "weights"), [((2, 2), None), ((3, 3), None), ((2, 3), np.ones((3, 2), np.float32))]
)
def test_sizes_that_disagree_are_refused(token_hw, weights):
    with pytest.raises(ValueError, match="shape"):
        anomaly_map(DISTANCES, token_hw, weights)


@pytest.mark.parametrize(
    ("grid", "size_wh", "expected"),
    [
        ([[0, 1]], (4, 1), [[0, 0.25, 0.75, 1]]),
        ([[0], [1]], (1, 4), [[0], [0.25], [0.75], [1]]),
        ([[0, 3]], (6, 1), [[0, 0, 1, 2, 3, 3]]),
        ([[7]], (3, 2), [[7, 7, 7], [7, 7, 7]]),
        ([[1, 2], [3, 4]], (2, 2), [[1, 2], [3, 4]]),
    ],
)
def test_upsampling_is_bilinear_between_token_centres(grid, size_wh, expected):
    pixels = upsample(np.array(grid, np.float32), size_wh)

    np.testing.assert_allclose(pixels, expected, atol=1e-6)
    assert pixels.dtype == np.float32


def test_upsampling_keeps_places_on_an_image_that_is_not_square():
    tokens = np.zeros((27, 27), np.float32)
    tokens[5, 20] = 1

    y, x = np.argwhere(upsample(tokens, (540, 270)) > 0.9).mean(axis=0)

    # Token (5, 20) covers rows 50–59 and columns 400–419.
    assert (x, y) == (pytest.approx(409.5), pytest.approx(54.5))


@pytest.mark.parametrize("size_wh", [(0, 5), (5, 0), (-1, 5)])
def test_upsampling_to_no_pixels_is_refused(size_wh):
    with pytest.raises(ValueError, match="at least 1"):
        upsample(np.zeros((2, 2), np.float32), size_wh)


@pytest.mark.parametrize(
    ("percentile", "expected"),
    [(0, 1), (50, 3), (75, 4), (80, pytest.approx(4.2)), (99, pytest.approx(4.96)), (100, 5)],
)
def test_score_interpolates_between_the_two_nearest_ranks(percentile, expected):
    assert score(np.array([[5, 3, 1, 4, 2]], np.float32), percentile) == expected


def test_score_counts_only_the_pixels_inside_the_mask():
    values = np.array([[9, 1], [2, 8]], np.float32)
    mask = np.array([[False, True], [True, False]])

    assert score(values, 100, mask) == 2
    assert score(values, 0, ~mask) == 8
    assert values.tolist() == [[9, 1], [2, 8]]


@settings(deadline=None)
@given(values=maps, percentile=st.floats(0, 100), data=st.data())
def test_score_is_numpys_percentile_for_any_map_mask_and_percentile(values, percentile, data):
    mask = data.draw(st.none() | hnp.arrays(np.bool_, values.shape).filter(np.any))
    counted = values if mask is None else values[mask]

    expected = np.percentile(counted.astype(np.float64), percentile)
    assert score(values, percentile, mask) == pytest.approx(expected, abs=1e-7)


@pytest.mark.parametrize("percentile", [0, 99, 100])
def test_score_of_a_single_pixel_is_its_value(percentile):
    assert score(np.array([[0.5]], np.float32), percentile) == 0.5


def test_score_over_an_empty_mask_is_refused():
    with pytest.raises(ValueError, match="nothing to score"):
        score(np.ones((2, 2), np.float32), 99, np.zeros((2, 2), np.bool_))


@pytest.mark.parametrize("percentile", [-1, 100.1, np.nan])
def test_score_at_a_percentile_out_of_range_is_refused(percentile):
    with pytest.raises(ValueError, match="expected 0 to 100"):
        score(np.ones((2, 2), np.float32), percentile)


def test_score_with_a_mask_of_another_shape_is_refused():
    with pytest.raises(ValueError, match="mask has shape"):
        score(np.ones((2, 2), np.float32), 99, np.ones((2, 3), np.bool_))


@pytest.mark.parametrize("percentile", [0, 50, 100])
def test_a_nan_anywhere_is_refused_and_never_scored(percentile):
    values = np.ones((20, 20), np.float32)
    values[3, 4] = np.nan

    with pytest.raises(ValueError, match="NaN"):
        score(values, percentile)


def test_a_nan_outside_the_mask_does_not_count():
    assert score(np.array([[np.nan, 1]], np.float32), 99, np.array([[False, True]])) == 1


@pytest.mark.parametrize(
    ("percentile", "expected"),
    # Of eight pixels the highest 50 %, 25 % and 12.5 % are four, two and one; below one pixel, it is one all the same.
    [(50, (9 + 8 + 5 + 4) / 4), (75, (9 + 8) / 2), (87.5, 9), (99, 9), (100, 9), (0, 4)],
)
def test_top_mean_is_the_mean_of_the_highest_pixels(percentile, expected):
    values = np.array([[1, 9, 2, 4], [8, 0, 5, 3]], np.float32)
    assert top_mean(values, percentile) == expected
    assert values.tolist() == [[1, 9, 2, 4], [8, 0, 5, 3]]


def test_top_mean_counts_only_the_pixels_inside_the_mask():
    values = np.array([[9, 1], [2, 8]], np.float32)
    assert top_mean(values, 50, np.array([[False, True], [True, False]])) == 2
    assert top_mean(values, 0, np.array([[False, True], [True, False]])) == 1.5


@settings(deadline=None)
@given(values=maps, percentile=st.floats(0, 100))
def test_top_mean_lies_between_the_percentile_and_the_largest(values, percentile):
    highest = np.sort(values, axis=None)[::-1][: max(1, round((100 - percentile) / 100 * values.size))]
    assert top_mean(values, percentile) == pytest.approx(highest.mean(dtype=np.float64))


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"percentile": 100.1}, "expected 0 to 100"),
        ({"mask": np.zeros((2, 2), np.bool_)}, "nothing to score"),
        ({"mask": np.ones((2, 3), np.bool_)}, "mask has shape"),
        ({"anomaly_map": np.full((2, 2), np.nan, np.float32)}, "NaN"),
    ],
)
def test_a_map_that_cannot_be_scored_is_refused_by_either_rule(changes, says):
    given = {"anomaly_map": np.ones((2, 2), np.float32), "percentile": 99, **changes}
    for rule in ("percentile", "top_mean"):
        with pytest.raises(ValueError, match=says):
            score_by(rule, **given)


def test_blur_of_sigma_zero_is_the_same_array():
    values = np.eye(3, dtype=np.float32)

    assert blur(values, 0) is values


def test_blur_spreads_a_point_as_a_gaussian():
    values = np.zeros((21, 21), np.float32)
    values[10, 10] = 1

    blurred = blur(values, 1.5)

    np.testing.assert_allclose(blurred[10, 12] / blurred[10, 10], np.exp(-(2**2) / (2 * 1.5**2)), rtol=1e-5)
    np.testing.assert_allclose(blurred, blurred.T, atol=1e-7)
    assert blurred.dtype == np.float32


@settings(deadline=None)
@given(values=maps, sigma=st.floats(0.1, 5))
def test_blur_neither_adds_nor_loses_nor_exceeds(values, sigma):
    blurred = blur(values, sigma)

    assert blurred.shape == values.shape
    assert blurred.sum() == pytest.approx(values.sum(), rel=1e-4, abs=1e-4)
    assert values.min() - 1e-5 <= blurred.min() <= blurred.max() <= values.max() + 1e-5


@pytest.mark.parametrize("sigma", [-0.1, np.inf, np.nan])
def test_blur_by_no_width_is_refused(sigma):
    with pytest.raises(ValueError, match="sigma"):
        blur(np.ones((2, 2), np.float32), sigma)


@pytest.mark.parametrize(("size_wh", "token_hw"), [((40, 24), (3, 5)), ((9, 30), (5, 3)), ((2, 3), (4, 4))])
@pytest.mark.parametrize("sigma", [0, 1])
def test_the_cells_inside_a_mask_are_those_that_change_the_map_there(size_wh, token_hw, sigma):
    mask = np.zeros(size_wh[::-1], np.bool_)
    mask[1:3, : size_wh[0] // 3 + 1] = True
    expected = np.zeros(token_hw, np.bool_)
    for cell in np.ndindex(*token_hw):
        one = np.zeros(token_hw, np.float32)
        one[cell] = 1
        expected[cell] = blur(upsample(one, size_wh), sigma)[mask].max() > 0
    found = cells_inside(mask, token_hw, sigma)
    np.testing.assert_array_equal(found, expected)
