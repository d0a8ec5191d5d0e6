import numpy as np
import pytest

from gateway.calibration.ok_scores import blind_area_mm2, n_rejected, ok_peaks, ok_scores
from gateway.store.ok_maps import Frame, OkMaps
from postprocess.roi_mask import Circle, Rect

# Two images on a 2×2 grid, sent as 2×2 pixels: every token is one pixel.
DISTANCES = np.array([[1, 2, 3, 4], [3, 2, 1, 8]], np.float32) / 8
WEIGHTS = np.array([[1, 1], [1, 0.5]], np.float32)
LEFT = Rect(0.5, None, 1, 2)


WHOLE = Frame((2, 2))


def maps(frame: Frame = WHOLE, weights: np.ndarray | None = None) -> OkMaps:
    return OkMaps(DISTANCES, (2, 2), (frame, frame), weights)


def test_mean_and_spread_are_per_token_without_weights() -> None:
    for given in (maps(), maps(weights=WEIGHTS)):
        assert (given.mean() * 8).tolist() == [[2, 2], [2, 6]]
        assert (given.spread() * 8).tolist() == [[1, 0], [1, 2]]
        assert (given.mean().dtype, given.spread().dtype) == (np.float32, np.float32)


def test_scores_are_the_percentile_of_each_weighted_map_inside_its_mask() -> None:
    assert ok_scores(maps(), 100) == [4 / 8, 8 / 8]
    assert ok_scores(maps(), 50) == [2.5 / 8, 2.5 / 8]
    assert ok_scores(maps(weights=WEIGHTS), 100) == [3 / 8, 4 / 8]
    assert ok_scores(maps(Frame((2, 2), LEFT)), 100) == [3 / 8, 3 / 8]


def test_scores_and_rejections_follow_the_rule_of_the_version() -> None:
    top = OkMaps(DISTANCES, (2, 2), (WHOLE, WHOLE), None, "top_mean")
    assert ok_scores(top, 50) == [3.5 / 8, 5.5 / 8]  # the two highest of four
    wish = {"pixel_threshold": 9.0, "percentile": 50, "blur_sigma": 0, "mm_per_px": 1, "area_mm2_thr": 0}
    assert n_rejected(top, threshold=5 / 8, **wish) == 1
    assert n_rejected(maps(), threshold=5 / 8, **wish) == 0  # both medians are 2.5 / 8


def test_peaks_are_the_highest_pixels_of_the_blurred_maps() -> None:
    assert ok_peaks(maps(), 0) == [4 / 8, 8 / 8]
    assert ok_peaks(maps(weights=WEIGHTS), 0) == [3 / 8, 4 / 8]
    assert ok_peaks(maps(Frame((2, 2), LEFT)), 0) == [3 / 8, 3 / 8]
    blurred = ok_peaks(maps(), 1)
    assert 2.5 / 8 < blurred[0] < 4 / 8
    assert 3.5 / 8 < blurred[1] < 8 / 8


@pytest.mark.parametrize(
    ("eighths", "pixel_eighths", "area_mm2_thr", "n"),
    [
        (8, 9, 0, 0),
        (4, 9, 0, 1),  # by score: 8 is above, 4 is not
        (3, 9, 0, 2),
        (8, 8, 0, 1),  # by region: a value at the threshold counts
        (8, 3, 0, 2),
        (8, 3, 8, 2),  # two pixels of 4 mm², in the second image from corner to corner
        (8, 3, 9, 0),
        (8, 2, 9, 2),
        (4, 8, 0, 1),  # by both, counted once
    ],
)
def test_an_image_is_rejected_by_score_or_by_region(
    eighths: int, pixel_eighths: int, area_mm2_thr: float, n: int
) -> None:
    found = n_rejected(
        maps(),
        threshold=eighths / 8,
        pixel_threshold=pixel_eighths / 8,
        percentile=100,
        blur_sigma=0,
        mm_per_px=2,
        area_mm2_thr=area_mm2_thr,
    )
    assert found == n


def test_the_blind_area_is_the_share_of_the_median_mask_above_the_percentile() -> None:
    whole = [Frame((10, 20)), Frame((100, 100)), Frame((200, 200))]
    assert blind_area_mm2(whole, 99, mm_per_px=0.1) == pytest.approx(0.01 * 10_000 * 0.01)
    assert blind_area_mm2(whole[:2], 95, mm_per_px=1) == pytest.approx(0.05 * (200 + 10_000) / 2)
    assert blind_area_mm2(whole, 100, mm_per_px=1) == 0
    disc = Frame((100, 100), Circle(None, None, 40))
    assert blind_area_mm2([disc], 99, mm_per_px=1) == pytest.approx(0.01 * np.pi * 1600, rel=0.005)
