"""Distances measured again for rows that a library found: libraries round distances near 0."""

import numpy as np
from numpy.typing import NDArray

SPARE = 4
"""Neighbours to ask a library for besides k, since its own distances decide which rows it finds."""


def distances_to(
    bank: NDArray[np.float32], queries: NDArray[np.float32], found: NDArray[np.integer], k: int
) -> NDArray[np.float32]:
    """Return the k smallest distances to the rows found, as norms of differences: exactly 0 for an equal row.

    Args:
        bank: float32 [M, D].
        queries: float32 [Q, D].
        found: int [Q, F], rows of the bank, F ≥ k.
        k: neighbours.

    Returns:
        float32 [Q, k], ascending.
    """
    distances = np.empty(found.shape, np.float32)
    for query, rows, out in zip(queries, found, distances, strict=True):
        difference = bank[rows] - query
        np.sqrt(np.einsum("fd,fd->f", difference, difference), out=out)
    distances.sort(axis=1)
    return np.ascontiguousarray(distances[:, :k])


def nearest_of(bank: NDArray[np.floating], query: NDArray[np.float32], found: NDArray[np.integer]) -> tuple[int, float]:
    """Return the nearest of the rows found, and its distance as the norm of the difference.

    Args:
        bank: float32 [M, D].
        query: float32 [D].
        found: int [F], rows of the bank, F ≥ 1.
    """
    difference = bank[found] - query
    squared = np.einsum("fd,fd->f", difference, difference)
    best = int(squared.argmin())
    return int(found[best]), float(np.sqrt(squared[best]))
