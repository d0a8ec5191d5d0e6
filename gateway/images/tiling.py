"""Tiles: an image is cut into overlapping squares of the network's size, whose tokens are stitched to one grid.

An image with more pixels than the network's input loses small defects when it is shrunk to it. The image is resized to
whole patches instead, about at its own resolution. The tiles lie on that raster, from border to border, without
padding. Each token of the grid comes from the tile in which its patch lies most central.
"""

import itertools
import math
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from gateway.images.decoding import resized

AUTO_FROM = 1.5
"""Longer side of an image over the network's input from which an image is cut into tiles without being asked for."""
_OVERLAP = 8
"""Neighbouring tiles share at least 1/8 of their tokens, rounded down: 3 of 27."""
_NEARLY = 0.9
"""A tenth of the resolution is given up where that saves tiles."""


_Real = TypeVar("_Real", bound=np.floating)


@dataclass(frozen=True, slots=True)
class Tiling:
    """How the images of one version become tiles, and the tokens of the tiles one grid."""

    tiles: tuple[int, int]
    """Rows and columns of tiles; `(1, 1)` is the whole image, shrunk or enlarged to the network's input."""
    token_hw: tuple[int, int]
    """`(h, w)` of the stitched grid."""
    tile_hw: tuple[int, int]
    """`(h, w)` of the token grid of one tile."""
    input_size: int
    """S: the side of a tile in pixels, a multiple of both sides of `tile_hw`."""

    def __post_init__(self) -> None:
        for count, n, of_tile in zip(self.tiles, self.token_hw, self.tile_hw, strict=True):
            if not (count >= 1 and of_tile <= n <= count * of_tile and (count > 1 or n == of_tile)):
                raise ValueError(f"{count} tiles of {of_tile} tokens do not make a grid of {n}")

    @classmethod
    def whole(cls, tile_hw: tuple[int, int], input_size: int) -> "Tiling":
        """Return the tiling of images that are not cut."""
        return cls((1, 1), tile_hw, tile_hw, input_size)

    @property
    def n_tiles(self) -> int:
        """Tiles of an image."""
        return self.tiles[0] * self.tiles[1]

    @property
    def n_tokens(self) -> int:
        """Tokens of the stitched grid."""
        return self.token_hw[0] * self.token_hw[1]

    @property
    def size_wh(self) -> tuple[int, int]:
        """Width and height that an image is resized to before it is cut."""
        height, width = (self.input_size // t * n for t, n in zip(self.tile_hw, self.token_hw, strict=True))
        return width, height

    def resized(self, image: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """Resize an image, uint8 [H, W] grey or [H, W, 3] RGB, to `size_wh`: uint8 [H', W', 3] RGB."""
        return resized(image, self.size_wh)

    def cut(self, image: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """Cut an image from `resized` into tiles: uint8 [T, S, S, 3], row by row."""
        if self.n_tiles == 1:
            return image[None]
        side = self.input_size
        y_step, x_step = (side // t for t in self.tile_hw)
        rows, columns = self._starts()
        return np.stack(
            [image[y_step * y : y_step * y + side, x_step * x : x_step * x + side] for y in rows for x in columns]
        )

    def stitched(self, tokens: NDArray[_Real]) -> NDArray[_Real]:
        """Take each token of the grid from the tile in which it is most central.

        Args:
            tokens: float [T, N, D], the engine's output for the tiles of an image.

        Returns:
            float [h · w, D], row by row of `token_hw`.
        """
        if self.n_tiles == 1:
            return np.asarray(tokens[0])
        found: NDArray[_Real] = np.empty((*self.token_hw, tokens.shape[2]), tokens.dtype)
        of_tiles = tokens.reshape(*self.tiles, *self.tile_hw, -1)
        rows, columns = (
            _owned(starts, tile, n) for starts, tile, n in zip(self._starts(), self.tile_hw, self.token_hw, strict=True)
        )
        for (i, (y, own_y)), (j, (x, own_x)) in itertools.product(enumerate(rows), enumerate(columns)):
            found[y, x] = of_tiles[i, j, own_y, own_x]
        return found.reshape(self.n_tokens, -1)

    def _starts(self) -> tuple[list[int], list[int]]:
        """Return the first token of each row and each column of tiles."""
        rows, columns = (
            [round(i * (n - tile) / max(1, count - 1)) for i in range(count)]
            for count, n, tile in zip(self.tiles, self.token_hw, self.tile_hw, strict=True)
        )
        return rows, columns


def _owned(starts: list[int], tile: int, n: int) -> list[tuple[slice, slice]]:
    """Return the tokens of one axis that each tile gives: in the grid, and in the tile itself.

    Tiles meet in the middle of their overlap.

    >>> _owned([0, 2], 4, 6)
    [(slice(0, 3, None), slice(0, 3, None)), (slice(3, 6, None), slice(1, 4, None))]
    """
    meets = [(start + tile + following) // 2 for start, following in itertools.pairwise(starts)]
    pairs = zip(starts, [0, *meets], [*meets, n], strict=True)
    return [(slice(first, stop), slice(first - start, stop - start)) for start, first, stop in pairs]


def tiling_of_size(
    size_wh: tuple[int, int], tile_hw: tuple[int, int], input_size: int, most: int, *, asked: bool
) -> Tiling:
    """Choose the tiling of images of one size: as many tiles as keep their resolution, at most `most`.

    The fewest tiles are taken that keep it to within a tenth, or within a tenth of what `most` tiles can keep. A side
    that is shorter than the network's input is enlarged to it. Any other change of size is the same for both sides, but
    for less than a patch.

    Args:
        size_wh: of the images, in pixels.
        tile_hw: `(h, w)` of the token grid of the network.
        input_size: side of its input in pixels.
        most: limit of the tiles of an image.
        asked: whether tiles are asked for; else a small image is not cut: its sides are below 1.5 × the input.
    """
    if most == 1 or (not asked and max(size_wh) < AUTO_FROM * input_size):
        return Tiling.whole(tile_hw, input_size)
    height, width = (
        max(tile, round(side * tile / input_size)) for side, tile in zip(size_wh[::-1], tile_hw, strict=True)
    )

    def kept(rows: int, columns: int) -> float:
        return min(1.0, _reach(rows, tile_hw[0]) / height, _reach(columns, tile_hw[1]) / width)

    counts = [(rows, columns) for rows in range(1, most + 1) for columns in range(1, most // rows + 1)]
    enough = _NEARLY * max(kept(*count) for count in counts)
    tiles = min((count for count in counts if kept(*count) >= enough), key=lambda c: (c[0] * c[1], -kept(*c)))
    share = kept(*tiles)
    token_hw = (
        max(tile_hw[0], min(_reach(tiles[0], tile_hw[0]), math.ceil(height * share))),
        max(tile_hw[1], min(_reach(tiles[1], tile_hw[1]), math.ceil(width * share))),
    )
    return Tiling(tiles, token_hw, tile_hw, input_size)


def _reach(count: int, tile: int) -> int:
    """Return how many tokens a number of tiles covers.

    >>> _reach(3, 27)
    75
    """
    return count * tile - (count - 1) * (tile // _OVERLAP)
