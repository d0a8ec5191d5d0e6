"""Patches of the token grid in pixels, on grids that one can check by eye."""

import cv2
import numpy as np
import pytest

from postprocess.patches import crop_png, patch_at, patch_box, with_context


@pytest.mark.parametrize("size_wh", [(384, 384), (100, 37), (27, 27), (13, 500)])
def test_every_pixel_lies_in_the_box_of_its_patch(size_wh):
    grid = (27, 27)
    for y in range(size_wh[1]):
        for x in range(size_wh[0]):
            left, top, width, height = patch_box(patch_at((x, y), grid, size_wh), grid, size_wh)
            assert left <= x < left + width
            assert top <= y < top + height


def test_the_patch_of_a_place_is_counted_along_rows():
    assert patch_box(5, (2, 4), (40, 20)) == (10, 10, 10, 10)
    assert patch_at((12, 19), (2, 4), (40, 20)) == 5


def test_context_is_one_patch_on_each_side_inside_the_image():
    assert with_context((10, 10, 10, 10), (60, 60)) == (0, 0, 30, 30)
    assert with_context((50, 0, 10, 10), (60, 60)) == (40, 0, 20, 20)


@pytest.mark.parametrize("channels", [1, 3])
def test_a_crop_holds_the_pixels_of_its_box(channels):
    image = np.arange(8 * 9 * channels, dtype=np.uint8).reshape(8, 9, channels).squeeze()
    crop = cv2.imdecode(np.frombuffer(crop_png(image, (2, 1, 4, 3)), np.uint8), cv2.IMREAD_UNCHANGED)
    expected = image[1:4, 2:6]
    assert np.array_equal(crop, expected if channels == 1 else expected[..., ::-1])


def test_a_large_crop_is_scaled_down():
    crop = cv2.imdecode(np.frombuffer(crop_png(np.zeros((900, 600), np.uint8), (0, 0, 300, 900)), np.uint8), 0)
    assert crop.shape == (256, 85)
