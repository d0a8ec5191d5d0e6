"""Random splits of OK images into those to learn and those to inspect."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True, slots=True)
class Split:
    """One division of the OK images, by their places."""

    order: tuple[int, ...]
    """The images to learn, in random order: fewer are learned by taking the first ones."""
    unseen: tuple[int, ...]
    """The images to inspect, the same for every number of learned images."""

    def learned(self, n: int) -> list[int]:
        """Return the first n images to learn, in the order of their places."""
        return sorted(self.order[:n])


def random_splits(n_ok: int, n_learn: int, n_splits: int, seed: int) -> list[Split]:
    """Divide OK images at random, several times.

    Args:
        n_ok: number of OK images.
        n_learn: largest number to learn; the others are inspected.
        n_splits: number of divisions.
        seed: of the divisions.

    Raises:
        ValueError: nothing would be left to inspect, or fewer than two images to learn.

    >>> [split.learned(2), split.unseen] if (split := random_splits(4, 3, 1, seed=0)[0]) else None
    [[0, 2], (3,)]
    """
    if not 2 <= n_learn < n_ok:
        raise ValueError(
            f"{n_learn} of {n_ok} OK images to learn: at least 2, and at least one must be left to inspect"
        )
    random = np.random.default_rng(seed)
    divisions = [random.permutation(n_ok).tolist() for _ in range(n_splits)]
    return [Split(tuple(each[:n_learn]), tuple(sorted(each[n_learn:]))) for each in divisions]


def of_types(kinds: Sequence[str], scores: Sequence[float]) -> dict[str, list[int]]:
    """Return the places of the images of each kind, the lowest score first.

    >>> of_types(["crack", "fray", "crack"], [0.9, 0.5, 0.7])
    {'crack': [2, 0], 'fray': [1]}
    """
    order = sorted(range(len(kinds)), key=lambda i: scores[i])
    return {kind: [i for i in order if kinds[i] == kind] for kind in sorted(set(kinds))}
