import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from postprocess.anomaly_map import blur, upsample
from postprocess.peak import peak, peak_xy, reaches
from postprocess.regions import find_regions, smallest_area_px


def picture(*rows):
    """A map from a drawing: '.' is 0, a digit itself."""
    return np.array([[0 if character == "." else int(character) for character in row] for row in rows], np.float32)


def peak_one_level_after_the_other(values, mask, smallest):
    for level in np.unique(values)[::-1]:
        above = (values >= level) & (True if mask is None else mask)
        areas = cv2.connectedComponentsWithStats(above.astype(np.uint8), connectivity=8)[2][1:, cv2.CC_STAT_AREA]
        if (areas >= smallest).any():
            return float(level)
    return -np.inf


@pytest.mark.parametrize(
    ("smallest", "level"), [(1, 9), (2, 7), (3, 7), (4, 6), (5, 1), (6, 1), (7, 0), (28, 0), (29, -np.inf)]
)
def test_peak_is_the_highest_level_at_which_enough_connected_pixels_survive(smallest, level):
    values = picture(
        ".......",
        "77...9.",
        "7......",
        "611....",
    )

    assert peak(values, None, smallest) == level


def test_pixels_that_touch_at_a_corner_are_connected():
    assert peak(picture("5..", ".5.", "..5"), None, 3) == 5


def test_pixels_outside_the_mask_do_not_count():
    values = picture("99.", "...", "..3")
    inside = np.array([[False, True, True], [False, True, True], [False, False, True]])

    assert peak(values, inside, 1) == 9
    assert peak(values, inside, 2) == 0
    assert peak(values, inside, 6) == -np.inf


def test_parts_of_a_mask_that_do_not_touch_do_not_add_up():
    values = picture("99.99")

    assert peak(values, values > 0, 2) == 9
    assert peak(values, values > 0, 3) == -np.inf


def test_no_pixel_inside_the_mask_has_no_peak():
    assert peak(picture("99"), np.zeros((1, 2), np.bool_), 1) == -np.inf


def test_two_maxima_are_joined_by_the_saddle_between_them():
    assert peak(picture("9828.", "....."), None, 4) == 2


@pytest.mark.parametrize(
    ("values", "mask", "smallest", "said"),
    [
        (np.array([[np.nan, 1]], np.float32), None, 1, "NaN"),
        (np.zeros((2, 2), np.float32), np.ones((2, 3), np.bool_), 1, "mask"),
        (np.zeros((2, 2), np.float32), None, 0, "min_area_px"),
    ],
)
def test_what_has_no_peak_is_refused(values, mask, smallest, said):
    with pytest.raises(ValueError, match=said):
        peak(values, mask, smallest)


few_levels = hnp.arrays(
    np.float32, hnp.array_shapes(min_dims=2, max_dims=2, max_side=9), elements=st.integers(0, 5).map(float)
)
many_levels = hnp.arrays(
    np.float32, hnp.array_shapes(min_dims=2, max_dims=2, max_side=9), elements=st.floats(0, 2, width=32)
)


@settings(max_examples=300, deadline=None)
@given(st.data(), few_levels | many_levels, st.integers(1, 90))
def test_peak_equals_that_of_trying_every_level(data, values, smallest):
    mask = data.draw(st.none() | hnp.arrays(np.bool_, values.shape))

    assert peak(values, mask, smallest) == peak_one_level_after_the_other(values, mask, smallest)


@settings(max_examples=200, deadline=None)
@given(st.data(), many_levels, st.floats(0, 40), st.sampled_from([0.1, 0.2, 0.5, 1.0]), st.floats(0, 2))
def test_there_is_a_region_exactly_where_the_peak_reaches_the_threshold(data, values, area_mm2, mm_per_px, threshold):
    mask = data.draw(st.none() | hnp.arrays(np.bool_, values.shape))
    level = peak(values, mask, smallest_area_px(area_mm2, mm_per_px))

    for at in (threshold, level, np.nextafter(np.float32(level), np.float32(9)), float(level) + 1e-12):
        if np.isfinite(at):
            assert bool(find_regions(values, at, mm_per_px, area_mm2, mask)) == reaches(level, at)


@pytest.mark.parametrize("smallest", [1, 25, 100, 2500])
def test_peak_of_a_map_of_many_maxima_equals_that_of_trying_every_level(smallest):
    cells = np.random.default_rng(smallest).random((9, 9), np.float32)
    values = np.round(blur(upsample(cells, (90, 60)), 1) * 64) / 64

    assert peak(values, None, smallest) == peak_one_level_after_the_other(values, None, smallest)


def test_an_area_larger_than_every_image_has_no_region():
    assert peak(picture("99"), None, smallest_area_px(1e300, 1e-9)) == -np.inf


def test_the_peak_lies_in_its_component_and_not_at_a_higher_spot_that_is_too_small():
    spots = np.zeros((6, 8), np.float32)
    spots[0, 0] = 9
    spots[3:5, 4:6] = [[5, 6], [7, 5]]
    assert peak_xy(spots, None, 1, peak(spots, None, 1)) == (0, 0)
    assert peak_xy(spots, None, 4, peak(spots, None, 4)) == (4, 4)
    inside = np.zeros(spots.shape, np.bool_)
    inside[3, 4:6] = True
    assert peak_xy(spots, inside, 2, peak(spots, inside, 2)) == (5, 3)
    assert peak_xy(spots, inside, 9, peak(spots, inside, 9)) == (5, 3)
