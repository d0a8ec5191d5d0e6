"""The protocol of a nearest-neighbour search in a memory bank."""

from typing import Protocol

import numpy as np
from numpy.typing import NDArray


class NeighbourSearch(Protocol):
    """Exact Euclidean search in a fixed bank. Several threads may search at once."""

    name: str

    @property
    def n_bytes(self) -> int:
        """Memory that the search holds besides the bank that it was given, in bytes."""

    def search(self, queries: NDArray[np.float32], k: int) -> NDArray[np.float32]:
        """Return the distances to the k nearest tokens of the bank, ascending.

        Args:
            queries: float32 [Q, D].
            k: at most the size of the bank.

        Returns:
            float32 [Q, k], Euclidean (not squared).
        """

    def nearest(self, query: NDArray[np.float32]) -> tuple[int, float]:
        """Return the row of the nearest token of the bank and its distance, the one that `search` returns for k = 1.

        Args:
            query: float32 [D].
        """
