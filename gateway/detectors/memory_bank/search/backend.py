"""Which nearest-neighbour search a bank gets: what the setting names, or what the machine has."""

import importlib.util
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from gateway.detectors.memory_bank.search.faiss_search import (
    FaissGpuSearch,
    FaissSearch,
    faiss_available,
    gpu_available,
)
from gateway.detectors.memory_bank.search.projected import ProjectedSearch
from gateway.detectors.memory_bank.search.projection import Projection
from gateway.detectors.memory_bank.search.protocol import NeighbourSearch
from gateway.detectors.memory_bank.search.sklearn_search import SklearnSearch

SearchBackend = Literal["auto", "numpy", "faiss", "faiss-gpu", "sklearn"]


def choose_backend(backend: SearchBackend = "auto") -> SearchBackend:
    """Return the backend that ``auto`` means on this machine; any other backend is returned as it is.

    Raises:
        RuntimeError: the backend is not installed here, or FAISS finds no GPU.
    """
    match backend:
        case "auto":
            return "faiss-gpu" if gpu_available() else "numpy"
        case "faiss" if not faiss_available():
            raise RuntimeError("GATEWAY_SEARCH is faiss, but FAISS is not installed here: install faiss-cpu")
        case "faiss-gpu" if not gpu_available():
            raise RuntimeError("GATEWAY_SEARCH is faiss-gpu, but FAISS finds no GPU: install the gpu extra")
        case "sklearn" if importlib.util.find_spec("sklearn") is None:
            raise RuntimeError("GATEWAY_SEARCH is sklearn, but scikit-learn is not installed here: install it")
    return backend


def search_name(backend: SearchBackend = "auto") -> str:
    """Return the `NeighbourSearch.name` of the search that `build_search` builds.

    Raises:
        RuntimeError: as `choose_backend`.
    """
    return {
        "numpy": ProjectedSearch.name,
        "faiss": FaissSearch.name,
        "faiss-gpu": FaissGpuSearch.name,
        "sklearn": SklearnSearch.name,
    }[choose_backend(backend)]


def build_search(
    bank: NDArray[np.floating], backend: SearchBackend = "auto", projection: Projection | None = None
) -> NeighbourSearch:
    """Build the search for a bank.

    Args:
        bank: float [M, D], M ≥ 1.
        backend: ``auto`` takes FAISS on a GPU where there is one, else `ProjectedSearch`.
        projection: the stored projection of the bank, for `ProjectedSearch`; None computes it.

    Raises:
        RuntimeError: as `choose_backend`.
    """
    match choose_backend(backend):
        case "faiss":
            return FaissSearch.build(bank)
        case "faiss-gpu":
            return FaissGpuSearch(bank)
        case "sklearn":
            return SklearnSearch(bank)
        case _:
            return ProjectedSearch(bank, projection)
