"""Tiles on grids that can be checked by eye."""

import itertools

import numpy as np
import pytest

from gateway.images.tiling import Tiling, tiling_of_size

DINO = {"tile_hw": (27, 27), "input_size": 378}


def test_each_token_comes_from_the_tile_in_which_it_is_most_central() -> None:
    tiling = Tiling((2, 3), (6, 8), (4, 4), 16)
    # The tiles start at rows 0, 2 and columns 0, 2, 4. Each token says which tile it is from.
    tokens = np.repeat(np.arange(6, dtype=np.float32), 16).reshape(6, 16, 1)
    assert tiling.stitched(tokens).reshape(6, 8).tolist() == [
        [0, 0, 0, 1, 1, 2, 2, 2],
        [0, 0, 0, 1, 1, 2, 2, 2],
        [0, 0, 0, 1, 1, 2, 2, 2],
        [3, 3, 3, 4, 4, 5, 5, 5],
        [3, 3, 3, 4, 4, 5, 5, 5],
        [3, 3, 3, 4, 4, 5, 5, 5],
    ]


@pytest.mark.parametrize("tiling", [Tiling((2, 3), (6, 8), (4, 4), 16), Tiling((3, 1), (11, 4), (4, 4), 16)])
def test_no_token_has_a_tile_in_which_it_is_farther_from_the_border(tiling: Tiling) -> None:
    tile = tiling.tile_hw[0]
    numbers = np.repeat(np.arange(tiling.n_tiles, dtype=np.float32), tile**2).reshape(tiling.n_tiles, tile**2, 1)
    found = tiling.stitched(numbers).reshape(tiling.token_hw).astype(int)
    starts = [
        [round(i * (n - tile) / max(1, count - 1)) for i in range(count)]
        for count, n in zip(tiling.tiles, tiling.token_hw, strict=True)
    ]

    def off_centre(at: int, start: int) -> float:
        return abs(at + 0.5 - start - tile / 2) if start <= at < start + tile else np.inf

    for y, x in itertools.product(*map(range, tiling.token_hw)):
        row, column = divmod(found[y, x], tiling.tiles[1])
        assert off_centre(y, starts[0][row]) == min(off_centre(y, start) for start in starts[0])
        assert off_centre(x, starts[1][column]) == min(off_centre(x, start) for start in starts[1])


def test_tiles_stitched_again_are_the_image() -> None:
    """A network whose token is the mean of its patch gives the grid of the whole image."""
    tiling = Tiling((2, 3), (6, 8), (4, 4), 16)
    patches = np.random.default_rng(0).integers(0, 256, (6, 8, 3), np.uint8)
    image = np.repeat(np.repeat(patches, 4, axis=0), 4, axis=1)
    assert tiling.size_wh == (32, 24)
    np.testing.assert_array_equal(tiling.resized(image), image)
    tiles = tiling.cut(image)
    assert tiles.shape == (6, 16, 16, 3)
    np.testing.assert_array_equal(tiles[0], image[:16, :16])
    np.testing.assert_array_equal(tiles[5], image[8:, 16:])
    tokens = tiles.reshape(6, 4, 4, 4, 4, 3).mean(axis=(2, 4)).reshape(6, 16, 3)
    np.testing.assert_array_equal(tiling.stitched(tokens).reshape(6, 8, 3), patches)


def test_the_whole_image_is_one_tile() -> None:
    tiling = Tiling.whole((4, 4), 16)
    image = np.random.default_rng(0).integers(0, 256, (16, 16, 3), np.uint8)
    np.testing.assert_array_equal(tiling.cut(tiling.resized(image)), image[None])
    tokens = np.random.default_rng(0).random((1, 16, 8), np.float32)
    np.testing.assert_array_equal(tiling.stitched(tokens), tokens[0])


@pytest.mark.parametrize(
    ("size_wh", "tiles", "token_hw"),
    [
        ((384, 384), (1, 1), (27, 27)),
        ((566, 566), (1, 1), (27, 27)),
        ((567, 378), (1, 2), (27, 40)),  # 1.5 × the input
        ((600, 300), (1, 2), (27, 43)),  # the shorter side is enlarged
        ((1000, 400), (1, 3), (27, 67)),  # 400 px are 5 % more than 378: not worth another row
        ((1024, 1024), (3, 3), (73, 73)),
        ((1024, 768), (2, 3), (51, 68)),  # 93 % of it
        ((1536, 1536), (3, 3), (75, 75)),  # the limit of 9 tiles keeps 0.68 of the resolution
        ((4000, 500), (1, 8), (27, 195)),
    ],
)
def test_auto_takes_as_many_tiles_as_keep_the_resolution(
    size_wh: tuple[int, int], tiles: tuple[int, int], token_hw: tuple[int, int]
) -> None:
    found = tiling_of_size(size_wh, **DINO, most=9, asked=False)
    assert (found.tiles, found.token_hw) == (tiles, token_hw)
    assert found.size_wh == (14 * token_hw[1], 14 * token_hw[0])


def test_the_limit_is_held_and_the_aspect_ratio_kept() -> None:
    for width, height, most in itertools.product((700, 1100, 1536, 2448), (400, 900, 2048), (1, 2, 4, 9, 16, 25)):
        found = tiling_of_size((width, height), **DINO, most=most, asked=True)
        assert 1 <= found.n_tiles <= most
        rows, columns = found.token_hw
        if found.n_tiles > 1 and rows > 27 and columns > 27:
            assert abs(columns - rows * width / height) <= 0.5 + width / height


def test_a_tenth_of_the_resolution_is_given_up_for_fewer_tiles() -> None:
    found = tiling_of_size((1536, 1536), **DINO, most=25, asked=False)
    assert (found.tiles, found.token_hw) == ((4, 4), (99, 99))  # 25 tiles would keep all of the 110


def test_tiles_that_are_asked_for_are_taken_for_a_small_image_too() -> None:
    found = tiling_of_size((500, 500), **DINO, most=4, asked=True)
    assert (found.tiles, found.token_hw) == ((2, 2), (36, 36))
    assert tiling_of_size((300, 300), **DINO, most=4, asked=True) == Tiling.whole((27, 27), 378)


@pytest.mark.parametrize("token_hw", [(4, 9), (4, 3), (5, 6)])
def test_a_grid_that_the_tiles_cannot_make_is_refused(token_hw: tuple[int, int]) -> None:
    with pytest.raises(ValueError, match="do not make a grid"):
        Tiling((1, 2), token_hw, (4, 4), 16)
