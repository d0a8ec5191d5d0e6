"""Exact nearest neighbours in a memory bank, by what the machine has or what is asked for."""

import importlib.util
from threading import Lock
from typing import Any, Literal, Protocol

import numpy as np
from numpy.typing import NDArray

from gateway.detectors.memory_bank.search.projected import ProjectedSearch

SearchBackend = Literal["auto", "numpy", "faiss", "faiss-gpu", "sklearn"]
_SPARE = 4
"""Neighbours asked for besides k and measured anew: FAISS's own distances are rounded where they are near 0."""


class NeighbourSearch(Protocol):
    """Exact Euclidean search in a fixed bank. Several threads may search at once."""

    name: str

    @property
    def n_bytes(self) -> int:
        """Memory held."""

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
    def build(cls, bank: NDArray[np.floating]) -> "FaissSearch":
        """Index a bank, float [M, D]."""
        import faiss

        index = faiss.IndexFlatL2(bank.shape[1])
        index.add(np.ascontiguousarray(bank, np.float32))
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

    @property
    def bank(self) -> NDArray[np.float32]:
        """What is indexed, float32 [M, D]: a view, to be used while the index lives."""
        import faiss

        return np.asarray(faiss.rev_swig_ptr(self.index.get_xb(), self.index.ntotal * self.index.d)).reshape(
            self.index.ntotal, self.index.d
        )

    @property
    def n_bytes(self) -> int:
        """Memory held."""
        return int(self.index.ntotal) * int(self.index.d) * 4

    def search(self, queries: NDArray[np.float32], k: int) -> NDArray[np.float32]:
        """See `NeighbourSearch.search`."""
        return _measured(self.index, self.bank, queries, k)


class FaissGpuSearch:
    """The same on the first GPU; what it finds is measured here."""

    name = "faiss-gpu-flat-l2"
    _resources: Any = None

    def __init__(self, bank: NDArray[np.floating]) -> None:
        import faiss

        if FaissGpuSearch._resources is None:  # holds memory of the GPU: one for all banks
            FaissGpuSearch._resources = faiss.StandardGpuResources()
        self._bank = np.ascontiguousarray(bank, np.float32)
        self._index = faiss.GpuIndexFlatL2(FaissGpuSearch._resources, self._bank.shape[1])
        self._index.add(self._bank)
        self._turn = Lock()

    @property
    def n_bytes(self) -> int:
        """Memory held, that of the GPU not counted."""
        return self._bank.nbytes

    def search(self, queries: NDArray[np.float32], k: int) -> NDArray[np.float32]:
        """See `NeighbourSearch.search`."""
        with self._turn:  # FAISS's GPU resources are not for several threads
            return _measured(self._index, self._bank, queries, k)


class SklearnSearch:
    """``sklearn.neighbors.NearestNeighbors``, brute force; what it finds is measured anew."""

    name = "sklearn-brute"

    def __init__(self, bank: NDArray[np.floating]) -> None:
        from sklearn.neighbors import NearestNeighbors

        self._bank = np.ascontiguousarray(bank, np.float32)
        self._neighbours = NearestNeighbors(algorithm="brute", metric="euclidean").fit(self._bank)

    @property
    def n_bytes(self) -> int:
        """Memory held."""
        return self._bank.nbytes

    def search(self, queries: NDArray[np.float32], k: int) -> NDArray[np.float32]:
        """See `NeighbourSearch.search`."""
        wanted = min(k + _SPARE, len(self._bank))
        found = self._neighbours.kneighbors(queries, n_neighbors=wanted, return_distance=False)
        return _distances_to(self._bank, queries, found, k)


def _measured(index: Any, bank: NDArray[np.float32], queries: NDArray[np.float32], k: int) -> NDArray[np.float32]:
    queries = np.ascontiguousarray(queries, np.float32)
    _, found = index.search(queries, min(k + _SPARE, len(bank)))
    return _distances_to(bank, queries, found, k)


def _distances_to(
    bank: NDArray[np.float32], queries: NDArray[np.float32], found: NDArray[np.integer], k: int
) -> NDArray[np.float32]:
    """The k smallest distances to the rows found, int [Q, F], as norms of differences: 0 for a row and its double."""
    distances = np.empty(found.shape, np.float32)
    for query, rows, out in zip(queries, found, distances, strict=True):
        difference = bank[rows] - query
        np.sqrt(np.einsum("fd,fd->f", difference, difference), out=out)
    distances.sort(axis=1)
    return np.ascontiguousarray(distances[:, :k])


def faiss_available() -> bool:
    """Whether FAISS can be imported here."""
    try:
        import faiss  # noqa: F401
    except ImportError:
        return False
    return True


def gpu_available() -> bool:
    """Whether FAISS is a build for GPUs and finds one."""
    if not faiss_available():
        return False
    import faiss

    return getattr(faiss, "get_num_gpus", int)() > 0


def choose_backend(backend: SearchBackend = "auto") -> SearchBackend:
    """The backend that ``auto`` means on this machine; any other is itself.

    Raises:
        RuntimeError: what was asked for is not installed or not there.
    """
    match backend:
        case "auto":
            return "faiss-gpu" if gpu_available() else "numpy"
        case "faiss" if not faiss_available():
            raise RuntimeError("search faiss was asked for, but it is not installed")
        case "faiss-gpu" if not gpu_available():
            raise RuntimeError("search faiss-gpu was asked for, but FAISS finds no GPU: install the gpu extra")
        case "sklearn" if importlib.util.find_spec("sklearn") is None:
            raise RuntimeError("search sklearn was asked for, but scikit-learn is not installed")
    return backend


def search_name(backend: SearchBackend = "auto") -> str:
    """The `NeighbourSearch.name` of what `build_search` builds. Raises what `choose_backend` does."""
    return {
        "numpy": ProjectedSearch.name,
        "faiss": FaissSearch.name,
        "faiss-gpu": FaissGpuSearch.name,
        "sklearn": SklearnSearch.name,
    }[choose_backend(backend)]


def build_search(bank: NDArray[np.floating], backend: SearchBackend = "auto") -> NeighbourSearch:
    """The search for a bank.

    Args:
        bank: float [M, D], M ≥ 1.
        backend: ``auto`` takes FAISS's GPU index where there is one, else `ProjectedSearch`.

    Raises:
        RuntimeError: what was asked for is not installed or not there.
    """
    match choose_backend(backend):
        case "faiss":
            return FaissSearch.build(bank)
        case "faiss-gpu":
            return FaissGpuSearch(bank)
        case "sklearn":
            return SklearnSearch(bank)
        case _:
            return ProjectedSearch(bank)
