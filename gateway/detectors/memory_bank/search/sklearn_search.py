"""Nearest neighbours by scikit-learn."""

import numpy as np
from numpy.typing import NDArray

from gateway.detectors.memory_bank.search.measured import SPARE, distances_to, nearest_of


class SklearnSearch:
    """``sklearn.neighbors.NearestNeighbors``, brute force. The distances to the rows it finds are measured again."""

    name = "sklearn-brute"

    def __init__(self, bank: NDArray[np.floating]) -> None:
        from sklearn.neighbors import NearestNeighbors

        self._bank = np.ascontiguousarray(bank, np.float32)
        self._neighbours = NearestNeighbors(algorithm="brute", metric="euclidean").fit(self._bank)

    @property
    def n_bytes(self) -> int:
        """See `NeighbourSearch.n_bytes`."""
        return self._bank.nbytes

    def search(self, queries: NDArray[np.float32], k: int) -> NDArray[np.float32]:
        """See `NeighbourSearch.search`."""
        return distances_to(self._bank, queries, self._found(queries, k), k)

    def nearest(self, query: NDArray[np.float32]) -> tuple[int, float]:
        """See `NeighbourSearch.nearest`."""
        return nearest_of(self._bank, query, self._found(query[None], 1)[0])

    def _found(self, queries: NDArray[np.float32], k: int) -> NDArray[np.int64]:
        """Return the rows that scikit-learn finds for float32 [Q, D], int64 [Q, F] with F ≥ k."""
        wanted = min(k + SPARE, len(self._bank))
        found = self._neighbours.kneighbors(queries, n_neighbors=wanted, return_distance=False)
        return np.asarray(found, np.int64)
