"""OK images that hardly differ from each other: one part photographed many times.

A threshold rests on how much OK images differ. If they hardly do, the next part is rejected.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from gateway.detectors.memory_bank.token_file import ImageTokens
from gateway.store.manifest import OkImage

_LIMIT = 0.8
"""Distance of a token to another image, divided by its distance to the rest of its own, below which it is copied.

Measured with the stand-in weights on the magnetic tiles, as the median over the tokens: each of 168 different tiles has
1.19 or more to the image that is most like it. One tile photographed several times has 0.3 to 0.5 with noise alone, and
0.5 to 1.1 if it also moves by a pixel. Parts of one design with surfaces of their own have 0.8 to 0.9.
"""
_TOKENS = 64
"""Tokens of an image that are compared."""
_IMAGES = 200
"""Images that are compared."""
_BANDS = 9
"""Parts of an image whose mean tokens tell which other image is most like it."""


@dataclass(frozen=True, slots=True)
class NearCopies:
    """How many images hardly differ from another one."""

    n: int
    n_compared: int
    pair: tuple[int, int] | None
    """The first two images that hardly differ."""

    def warnings(self, images: Sequence[OkImage]) -> list[str]:
        """Warn if at least half of the images hardly differ from another one.

        Args:
            images: the images, in the order of their tokens.
        """
        if self.pair is None or 2 * self.n < self.n_compared:
            return []
        first, second = (images[i].file_name for i in self.pair)
        share = f"{self.n} of {self.n_compared}"
        return [
            f"images: {share} OK images hardly differ from another one, such as {first} from {second}: the threshold "
            "rests on how much OK images differ, so learn images of different parts"
        ]


def find_near_copies(tokens: ImageTokens) -> NearCopies:
    """Find OK images that hardly differ from the image that is most like them.

    A token is copied if it is nearer to a token of the other image, wherever that lies, than to all others of its own
    image. An image hardly differs if more than half of its tokens are copied. The criterion has no unit: it holds for
    any network and any part.

    Args:
        tokens: float16 [I, N, D] of I images, of unit norm.
    """
    n_images = tokens.shape[0]
    if n_images < 2:
        return NearCopies(0, n_images, None)
    like = _most_alike(tokens)
    compared = np.unique(np.linspace(0, n_images - 1, min(n_images, _IMAGES)).astype(np.intp)).tolist()
    copies = [i for i in compared if _hardly_differs(tokens.image(i), tokens.image(like[i]))]
    return NearCopies(len(copies), len(compared), (copies[0], int(like[copies[0]])) if copies else None)


def _most_alike(tokens: ImageTokens) -> list[int]:
    """Return for each image the other one whose mean tokens are nearest."""
    means = []
    for index in range(tokens.shape[0]):
        bands = np.array_split(tokens.image(index).astype(np.float32), min(_BANDS, tokens.shape[1]))
        means.append(np.concatenate([band.mean(axis=0) for band in bands]))
    points = np.stack(means)
    points -= points.mean(axis=0)
    squares = np.einsum("id,id->i", points, points)
    squared = squares[None, :] - 2 * (points @ points.T)
    np.fill_diagonal(squared, np.inf)
    nearest: list[int] = squared.argmin(axis=1).tolist()
    return nearest


def _hardly_differs(one: NDArray[np.float16], other: NDArray[np.float16]) -> bool:
    chosen = np.arange(0, len(one), max(1, len(one) // _TOKENS))
    own = one.astype(np.float32)
    queries = own[chosen]
    to_own = _distances(queries, own)
    to_own[np.arange(len(chosen)), chosen] = np.inf
    to_other = _distances(queries, other.astype(np.float32))
    copied = to_other.min(axis=1) <= _LIMIT * to_own.min(axis=1)
    return bool(np.median(copied) > 0.5)


def _distances(queries: NDArray[np.float32], tokens: NDArray[np.float32]) -> NDArray[np.float32]:
    squared = (queries**2).sum(axis=1)[:, None] + (tokens**2).sum(axis=1)[None, :] - 2 * (queries @ tokens.T)
    return np.asarray(np.sqrt(np.maximum(squared, 0)), np.float32)
