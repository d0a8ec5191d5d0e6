import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from postprocess.regions import Region, bounded, find_regions, mm2_to_px, px_to_mm2


def picture(*rows):
    """A map from a drawing: '.' is 0, '#' is 1, a digit its tenth."""
    levels = {".": 0.0, "#": 1.0} | {str(digit): digit / 10 for digit in range(10)}
    return np.array([[levels[character] for character in row] for row in rows], np.float32)


def every_region(anomaly_map, mask=None):
    return find_regions(anomaly_map, 0.5, mm_per_px=1, area_mm2_thr=0, mask=mask)


def island(area_px, size_hw=(30, 50)):
    """A map with one region of that many pixels, ten to a row."""
    values = np.zeros(size_hw, np.float32)
    rows, rest = divmod(area_px, 10)
    values[3 : 3 + rows, 5:15] = 1
    values[3 + rows, 5 : 5 + rest] = 1
    return values


def test_nothing_at_the_threshold_is_no_region():
    assert every_region(picture("444", "444")) == []


def test_a_pixel_at_the_threshold_belongs_to_a_region():
    regions = every_region(picture("...", ".5."))

    assert [region.bbox for region in regions] == [(1, 1, 1, 1)]


@pytest.mark.parametrize("threshold", [0.1, 0.3, 0.7, 0.9])
def test_rounding_to_float32_keeps_a_pixel_at_the_threshold_there(threshold):
    assert len(find_regions(np.full((2, 2), threshold, np.float32), threshold, 1, 0)) == 1


@pytest.mark.parametrize("threshold", [1e300, np.inf])
def test_no_distance_reaches_a_threshold_beyond_float32(threshold):
    assert find_regions(np.full((2, 2), 2, np.float32), threshold, 1, 0) == []


def test_regions_are_sorted_by_area_then_from_top_to_bottom_then_from_left_to_right():
    regions = every_region(
        picture(
            "......#",
            "##.#...",
            "......#",
            ".###..#",
        )
    )

    assert [(region.area_px, region.bbox) for region in regions] == [
        (3, (1, 3, 3, 1)),
        (2, (0, 1, 2, 1)),
        (2, (6, 2, 1, 2)),
        (1, (6, 0, 1, 1)),
        (1, (3, 1, 1, 1)),
    ]


def test_pixels_that_touch_at_a_corner_are_one_region():
    (region,) = every_region(
        picture(
            "....",
            ".#..",
            "..#.",
            "...#",
        )
    )

    assert (region.area_px, region.bbox) == (3, (1, 1, 3, 3))


@pytest.mark.parametrize(
    ("values", "contour"),
    [
        (picture("...", "..#", "..."), {(2, 1)}),
        (picture("....", ".##.", "...."), {(1, 1), (2, 1)}),
        (picture("#####"), {(0, 0), (4, 0)}),
        (picture("#", "#", "#"), {(0, 0), (0, 2)}),
        (picture(".....", ".###.", ".###.", "....."), {(1, 1), (3, 1), (3, 2), (1, 2)}),
        (picture("###", "###"), {(0, 0), (2, 0), (2, 1), (0, 1)}),
        (picture("#..", ".#.", "..#"), {(0, 0), (2, 2)}),
    ],
)
def test_the_contour_holds_the_corners_of_a_region_in_pixels_of_the_map(values, contour):
    (region,) = every_region(values)

    assert {tuple(point) for point in region.contour.tolist()} == contour
    assert region.contour.dtype == np.int32
    assert region.contour.shape == (len(region.contour), 2)


def test_a_hole_is_not_counted_and_the_contour_is_the_outer_one():
    (region,) = every_region(
        picture(
            ".......",
            ".#####.",
            ".#...#.",
            ".#...#.",
            ".#####.",
        )
    )

    assert (region.area_px, region.bbox) == (14, (1, 1, 5, 4))
    assert {tuple(point) for point in region.contour.tolist()} == {(1, 1), (5, 1), (5, 4), (1, 4)}


def test_a_region_inside_the_hole_of_another_is_its_own():
    ring, spot = every_region(
        picture(
            "#####",
            "#...#",
            "#.#.#",
            "#...#",
            "#####",
        )
    )

    assert (ring.area_px, ring.bbox) == (16, (0, 0, 5, 5))
    assert (spot.area_px, spot.bbox, spot.contour.tolist()) == (1, (2, 2, 1, 1), [[2, 2]])


def test_pixels_outside_the_mask_belong_to_no_region():
    mask = picture("##.##", "##.##") == 1

    left, right = every_region(picture("#####", "..###"), mask)

    assert (left.area_px, left.bbox) == (4, (3, 0, 2, 2))
    assert (right.area_px, right.bbox) == (2, (0, 0, 2, 1))


def test_a_mask_that_leaves_nothing_is_no_region():
    assert every_region(picture("#.."), np.array([[False, True, True]])) == []


@pytest.mark.parametrize(
    ("mm_per_px", "area_mm2_thr", "smallest_px"),
    [
        (0.2, 1.0, 25),
        (0.1, 1.0, 100),
        (0.05, 0.5, 200),
        (0.25, 1.0, 16),
        (0.3, 1.0, 12),
        (0.3, 0.9, 10),
        (0.7, 4.9, 10),
        (1.0, 7.0, 7),
        (2.0, 1.0, 1),
    ],
)
def test_the_smallest_region_kept_is_exact_at_any_scale(mm_per_px, area_mm2_thr, smallest_px):
    (region,) = find_regions(island(smallest_px), 0.5, mm_per_px, area_mm2_thr)

    assert region.area_px == smallest_px
    assert region.area_mm2 == pytest.approx(smallest_px * mm_per_px**2)
    assert find_regions(island(smallest_px - 1), 0.5, mm_per_px, area_mm2_thr) == []


@settings(deadline=None)
@given(pixels=st.integers(1, 200), mm_per_px=st.integers(1, 2000).map(lambda um: um / 1000))
def test_a_region_of_exactly_the_area_asked_for_is_kept(pixels, mm_per_px):
    values = island(pixels)

    assert find_regions(values, 0.5, mm_per_px, pixels * mm_per_px**2)
    assert find_regions(values, 0.5, mm_per_px, px_to_mm2(pixels, mm_per_px))
    assert find_regions(values, 0.5, mm_per_px, (pixels + 0.001) * mm_per_px**2) == []


@settings(deadline=None)
@given(
    above=hnp.arrays(np.bool_, hnp.array_shapes(min_dims=2, max_dims=2, max_side=15)),
    data=st.data(),
)
def test_regions_share_out_the_pixels_above_the_threshold(above, data):
    mask = data.draw(st.none() | hnp.arrays(np.bool_, above.shape))
    inside = above if mask is None else above & mask

    regions = every_region(above.astype(np.float32), mask)

    assert sum(region.area_px for region in regions) == inside.sum()
    assert [region.area_px for region in regions] == sorted((region.area_px for region in regions), reverse=True)
    for region in regions:
        x, y, w, h = region.bbox
        columns, rows = region.contour.T
        assert inside[rows, columns].all()
        assert (columns.min(), rows.min(), columns.max(), rows.max()) == (x, y, x + w - 1, y + h - 1)


def test_finding_regions_leaves_its_arguments_alone():
    values, mask = picture("##.", "..#"), picture("###", "##.") == 1
    before = values.copy(), mask.copy()

    find_regions(values, 0.5, 1, 0, mask)

    assert (values == before[0]).all()
    assert (mask == before[1]).all()


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"mm_per_px": 0}, "mm_per_px is 0"),
        ({"mm_per_px": -0.2}, "mm_per_px is -0.2"),
        ({"mm_per_px": np.nan}, "mm_per_px is nan"),
        ({"mm_per_px": np.inf}, "mm_per_px is inf"),
        ({"area_mm2_thr": -1}, "-1 mm²"),
        ({"area_mm2_thr": np.nan}, "nan mm²"),
        ({"mask": np.ones((2, 3), np.bool_)}, "mask has shape"),
        ({"threshold": np.nan}, "NaN"),
        ({"anomaly_map": np.array([[1, np.nan], [0, 0]], np.float32)}, "NaN"),
    ],
)
def test_what_cannot_be_measured_is_refused(changed, message):
    usable = {"anomaly_map": picture("#.", ".."), "threshold": 0.5, "mm_per_px": 0.2, "area_mm2_thr": 0}

    with pytest.raises(ValueError, match=message):
        find_regions(**(usable | changed))


@pytest.mark.parametrize(("mm2", "mm_per_px", "px"), [(1, 0.2, 25), (1, 0.1, 100), (9, 3, 1), (0, 0.2, 0)])
def test_areas_convert_both_ways(mm2, mm_per_px, px):
    assert mm2_to_px(mm2, mm_per_px) == pytest.approx(px)
    assert px_to_mm2(px, mm_per_px) == pytest.approx(mm2)


def _saw(n: int, region_px: int = 100) -> Region:
    """A region whose contour has n points, none of them on a line with its neighbours."""
    contour = np.array([[x, 3 * (x % 2)] for x in range(n)], np.int32)
    return Region((0, 0, n, 4), region_px, float(region_px), contour)


def test_regions_within_bounds_are_left_alone():
    regions = [_saw(100), _saw(50)]
    kept, said = bounded(regions, 2, 150)
    assert kept == regions
    assert said == []


def test_the_longest_contours_share_the_points_and_short_ones_stay_whole():
    regions = [_saw(1000), _saw(4), _saw(300), _saw(7)]
    kept, said = bounded(regions, 10, 111)
    assert [len(region.contour) for region in kept][1::2] == [4, 7]
    assert 0 < len(kept[0].contour) <= 50
    assert 0 < len(kept[2].contour) <= 50
    assert [region.bbox for region in kept] == [region.bbox for region in regions]
    (only,) = said
    assert only.startswith("contours: 1311 points, at most 111 are sent")


def test_the_smallest_regions_are_left_out_and_counted():
    kept, said = bounded([_saw(4, area) for area in (9, 5, 5, 1)], 2, 8)
    assert [region.area_px for region in kept] == [9, 5]
    assert said == ["regions: 4 were found, the answer holds the 2 largest"]


@pytest.mark.parametrize("seed", range(20))
def test_any_contours_fit_four_points_each(seed):
    rng = np.random.default_rng(seed)
    noise = rng.random((64, 64), np.float32)
    regions = find_regions(noise, 0.6, 1.0, 0)
    for n in (1, 3, len(regions)):
        kept, _ = bounded(regions, n, 4 * n)
        assert len(kept) == n
        assert sum(len(region.contour) for region in kept) <= 4 * n
        assert all(len(region.contour) >= 1 for region in kept)


def test_a_coarser_contour_stays_within_the_tolerance_that_is_told():
    disc = np.zeros((400, 400), np.float32)
    cv2.circle(disc, (200, 200), 150, 1.0, -1)
    (region,) = find_regions(disc, 0.5, 1.0, 0)
    (kept,), (said,) = bounded([region], 1, 16)
    tolerance = float(said.split()[-2])
    distances = [cv2.pointPolygonTest(kept.contour, (float(x), float(y)), True) for x, y in region.contour]
    assert 0 < np.abs(distances).max() <= tolerance + 1e-6
