"""Exact nearest neighbours in a memory bank, by FAISS or, where it is not installed, by scikit-learn."""

from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray


class NeighbourSearch(Protocol):
    """Exact Euclidean search in a fixed bank."""

    name: str

    def search(self, queries: NDArray[np.float32], k: int) -> NDArray[np.float32]:
        """Distances to the k nearest, ascending.

        Args:
            queries: float32 [Q, D].
            k: at most the size of the bank.

        Returns:
            float32 [Q, k], Euclidean (not squared).
        """


class FaissSearch:
    """FAISS ``IndexFlatL2``, the index of record."""

    name = "faiss-flat-l2"

    def __init__(self, index: Any) -> None:
        self.index = index

    @classmethod
    def build(cls, bank: NDArray[np.float32]) -> "FaissSearch":
        """Index a bank, float32 [M, D]."""
        import faiss

        index = faiss.IndexFlatL2(bank.shape[1])
        index.add(np.ascontiguousarray(bank))
        return cls(index)

    @classmethod
    def from_bytes(cls, data: bytes) -> "FaissSearch":
        """Read what `to_bytes` gave.

        Raises:
            ValueError: not a flat L2 index.
        """
        import faiss

        try:
            index = faiss.deserialize_index(np.frombuffer(data, np.uint8))
        except RuntimeError as error:
            raise ValueError(f"not a FAISS index: {error}") from error
        if not isinstance(index, faiss.IndexFlat) or index.metric_type != faiss.METRIC_L2:
            raise ValueError(f"not a flat L2 index: {type(index).__name__}")
        return cls(index)

    def to_bytes(self) -> bytes:
        """The contents of an ``index.faiss``."""
        import faiss

        return bytes(faiss.serialize_index(self.index))

    def search(self, queries: NDArray[np.float32], k: int) -> NDArray[np.float32]:
        """See `NeighbourSearch.search`."""
        squared, _ = self.index.search(np.ascontiguousarray(queries), k)
        # FAISS expands the square for speed; rounding can leave a small negative.
        return np.sqrt(np.maximum(squared, 0.0, out=squared), out=squared)  # type: ignore[no-any-return]


class SklearnSearch:
    """``sklearn.neighbors.NearestNeighbors``, brute force."""

    name = "sklearn-brute"

    def __init__(self, bank: NDArray[np.float32]) -> None:
        from sklearn.neighbors import NearestNeighbors

        self._neighbours = NearestNeighbors(algorithm="brute", metric="euclidean").fit(bank)

    def search(self, queries: NDArray[np.float32], k: int) -> NDArray[np.float32]:
        """See `NeighbourSearch.search`."""
        distances, _ = self._neighbours.kneighbors(queries, n_neighbors=k)
        return np.asarray(distances, np.float32)


def faiss_available() -> bool:
    """Whether FAISS can be imported here."""
    try:
        import faiss  # noqa: F401
    except ImportError:
        return False
    return True


def build_search(bank: NDArray[np.float32]) -> NeighbourSearch:
    """The search for a bank, float32 [M, D], with what is installed."""
    return FaissSearch.build(bank) if faiss_available() else SklearnSearch(bank)
