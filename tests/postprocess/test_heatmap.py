import io

import cv2
import numpy as np
import pytest
from PIL import Image

from postprocess.heatmap import encode_heatmap, grey_png, overlay


def decoded(png):
    return cv2.imdecode(np.frombuffer(png, np.uint8), cv2.IMREAD_UNCHANGED)


def test_a_heatmap_is_a_grey_8_bit_png_of_the_maps_size():
    png = encode_heatmap(np.zeros((3, 5), np.float32), 1)

    grey = decoded(png)
    assert png.startswith(b"\x89PNG\r\n\x1a\n")
    assert (grey.shape, grey.dtype) == ((3, 5), np.uint8)


@pytest.mark.parametrize(
    ("distance", "heatmap_max", "level"),
    [
        (0, 1, 0),
        (1, 1, 255),
        (0.5, 1, 128),
        (0.7, 1.4, 128),
        (1.4, 1.4, 255),
        (100.4 / 255, 1, 100),
        (100.6 / 255, 1, 101),
        (1.5, 1, 255),
        (1e30, 1, 255),
        (np.inf, 1, 255),
        (-1, 1, 0),
        (3e-7, 3e-7, 255),
    ],
)
def test_a_level_is_the_share_of_the_maximum_to_the_nearest_and_clipped(distance, heatmap_max, level):
    assert decoded(encode_heatmap(np.full((2, 2), distance, np.float32), heatmap_max)).tolist() == [[level] * 2] * 2


def test_every_level_comes_back():
    levels = np.arange(256, dtype=np.uint8).reshape(8, 32)

    assert (decoded(encode_heatmap(levels.astype(np.float32) / 255 * 0.37, 0.37)) == levels).all()


@pytest.mark.parametrize("shape", [(1, 1), (1, 7), (7, 1), (40, 30)])
def test_every_decoder_reads_the_png(shape):
    grey = np.random.default_rng(0).integers(0, 256, shape, np.uint8)
    png = grey_png(grey)
    assert np.array_equal(decoded(png), grey)
    with Image.open(io.BytesIO(png)) as image:
        image.verify()  # checksums
    with Image.open(io.BytesIO(png)) as image:
        assert image.mode == "L"
        assert np.array_equal(np.asarray(image), grey)


def test_outside_the_mask_is_zero_and_the_map_stays_as_it_was():
    values = np.ones((2, 2), np.float32)
    mask = np.array([[True, False], [False, True]])

    assert decoded(encode_heatmap(values, 1, mask)).tolist() == [[255, 0], [0, 255]]
    assert (values == 1).all()


@pytest.mark.parametrize("heatmap_max", [0, -1, np.nan, np.inf])
def test_a_maximum_that_scales_nothing_is_refused(heatmap_max):
    with pytest.raises(ValueError, match="heatmap_max"):
        encode_heatmap(np.ones((2, 2), np.float32), heatmap_max)


def test_nan_is_refused_and_never_drawn():
    with pytest.raises(ValueError, match="NaN"):
        encode_heatmap(np.array([[0, np.nan]], np.float32), 1)


def test_a_mask_of_another_shape_is_refused():
    with pytest.raises(ValueError, match="mask has shape"):
        encode_heatmap(np.ones((2, 2), np.float32), 1, np.ones((1, 2), np.bool_))


def test_an_overlay_leaves_cold_places_as_they_are_and_reddens_hot_ones():
    image = np.full((4, 6, 3), 100, np.uint8)
    heatmap = np.zeros((4, 6), np.uint8)
    heatmap[:, 3:] = 240

    shown = overlay(image, heatmap)

    assert (shown[:, :3] == 100).all()
    red, green, blue = shown[0, 5].tolist()
    assert red > green
    assert red > blue
    assert (image == 100).all()


def test_an_overlay_draws_contours_in_white():
    contour = np.array([[1, 1], [4, 1], [4, 3], [1, 3]], np.int32)

    shown = overlay(np.zeros((5, 7, 3), np.uint8), np.zeros((5, 7), np.uint8), [contour])

    assert ["".join(".#"[int(pixel == 255)] for pixel in row) for row in shown[:, :, 1]] == [
        ".......",
        ".####..",
        ".#..#..",
        ".####..",
        ".......",
    ]


@pytest.mark.parametrize("image_shape", [(4, 5, 3), (5, 4), (5, 4, 4)])
def test_an_overlay_of_another_size_is_refused(image_shape):
    with pytest.raises(ValueError, match="image has shape"):
        overlay(np.zeros(image_shape, np.uint8), np.zeros((5, 4), np.uint8))
