"""Nearest neighbours by FAISS, on the CPU and on a GPU."""

from threading import RLock
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from gateway.detectors.memory_bank.search.measured import SPARE, distances_to, nearest_of


class FaissSearch:
    """FAISS ``IndexFlatL2``, the index of record."""

    name = "faiss-flat-l2"

    def __init__(self, index: Any) -> None:
        self.index = index

    @classmethod
    def build(cls, bank: NDArray[np.floating]) -> "FaissSearch":
        """Index a bank, float [M, D]."""
        import faiss

        index = faiss.IndexFlatL2(bank.shape[1])
        index.add(np.ascontiguousarray(bank, np.float32))
        return cls(index)

    @classmethod
    def from_bytes(cls, data: bytes) -> "FaissSearch":
        """Read the bytes that `to_bytes` returned.

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
        """Return the contents of an ``index.faiss``."""
        import faiss

        return bytes(faiss.serialize_index(self.index))

    @property
    def bank(self) -> NDArray[np.float32]:
        """The indexed tokens, float32 [M, D]: a view that is valid while the index lives."""
        import faiss

        return np.asarray(faiss.rev_swig_ptr(self.index.get_xb(), self.index.ntotal * self.index.d)).reshape(
            self.index.ntotal, self.index.d
        )

    @property
    def n_bytes(self) -> int:
        """See `NeighbourSearch.n_bytes`."""
        return int(self.index.ntotal) * int(self.index.d) * 4

    def search(self, queries: NDArray[np.float32], k: int) -> NDArray[np.float32]:
        """See `NeighbourSearch.search`."""
        queries = np.ascontiguousarray(queries, np.float32)
        return distances_to(self.bank, queries, _found(self.index, queries, k), k)

    def nearest(self, query: NDArray[np.float32]) -> tuple[int, float]:
        """See `NeighbourSearch.nearest`."""
        return nearest_of(self.bank, query, _found(self.index, np.ascontiguousarray(query[None], np.float32), 1)[0])


class FaissGpuSearch:
    """FAISS ``GpuIndexFlatL2`` on the first GPU. The distances to the rows it finds are measured on the CPU."""

    name = "faiss-gpu-flat-l2"
    _resources: ClassVar[Any] = None
    """FAISS's ``StandardGpuResources``. They hold memory of the GPU, so that all banks share one."""
    _turn: ClassVar[RLock] = RLock()
    """Held for every call that uses the resources. FAISS's documentation: GPU indices that share a
    ``StandardGpuResources`` must not be used by two threads at once, not even to add to one and search another."""

    def __init__(self, bank: NDArray[np.floating]) -> None:
        import faiss

        self._bank = np.ascontiguousarray(bank, np.float32)
        with FaissGpuSearch._turn:
            if FaissGpuSearch._resources is None:
                FaissGpuSearch._resources = faiss.StandardGpuResources()
            self._index: Any = faiss.GpuIndexFlatL2(FaissGpuSearch._resources, self._bank.shape[1])
            self._index.add(self._bank)

    def __del__(self) -> None:
        # The index gives its memory back to the resources. Any thread may drop the last reference to a bank.
        with FaissGpuSearch._turn:
            self._index = None

    @property
    def n_bytes(self) -> int:
        """See `NeighbourSearch.n_bytes`; memory of the GPU is not counted."""
        return self._bank.nbytes

    def search(self, queries: NDArray[np.float32], k: int) -> NDArray[np.float32]:
        """See `NeighbourSearch.search`."""
        queries = np.ascontiguousarray(queries, np.float32)
        with FaissGpuSearch._turn:
            found = _found(self._index, queries, k)
        return distances_to(self._bank, queries, found, k)

    def nearest(self, query: NDArray[np.float32]) -> tuple[int, float]:
        """See `NeighbourSearch.nearest`."""
        with FaissGpuSearch._turn:
            found = _found(self._index, np.ascontiguousarray(query[None], np.float32), 1)
        return nearest_of(self._bank, query, found[0])


def _found(index: Any, queries: NDArray[np.float32], k: int) -> NDArray[np.int64]:
    """Return the rows that an index finds for float32 [Q, D], int64 [Q, F] with F ≥ k."""
    _, found = index.search(queries, min(k + SPARE, int(index.ntotal)))
    return np.asarray(found, np.int64)


def faiss_available() -> bool:
    """Return whether FAISS can be imported here."""
    try:
        import faiss  # noqa: F401
    except ImportError:
        return False
    return True


def gpu_available() -> bool:
    """Return whether FAISS is a build for GPUs and finds one."""
    if not faiss_available():
        return False
    import faiss

    return getattr(faiss, "get_num_gpus", int)() > 0
