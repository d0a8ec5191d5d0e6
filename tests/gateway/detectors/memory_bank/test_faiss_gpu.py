"""FAISS on a GPU, with a stand-in for its module: no GPU is needed to see whether two threads use it at once."""

import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import pytest

from gateway.detectors.memory_bank.search.faiss_search import FaissGpuSearch


class Resources:
    """Notices every use that begins before another one has ended."""

    made = 0

    def __init__(self) -> None:
        Resources.made += 1
        self.uses: list[str] = []
        self.overlaps: list[tuple[str, str]] = []
        self._busy_with: str | None = None

    def use(self, what: str) -> None:
        if self._busy_with is not None:
            self.overlaps.append((self._busy_with, what))
        self._busy_with = what
        self.uses.append(what)
        time.sleep(0.002)  # lets other threads run, as FAISS does
        self._busy_with = None


class Index:
    """An exact index, slow enough to be met by another thread."""

    def __init__(self, resources: Resources, dim: int) -> None:
        self.resources = resources
        resources.use("make")

    def add(self, rows: Any) -> None:
        self.resources.use("add")
        self.rows = rows.copy()
        self.ntotal = len(rows)

    def search(self, queries: Any, k: int) -> Any:
        self.resources.use("search")
        squared = ((queries[:, None] - self.rows) ** 2).sum(axis=2)
        return np.sort(squared)[:, :k], np.argsort(squared)[:, :k]

    def __del__(self) -> None:
        self.resources.use("free")


@pytest.fixture
def resources(monkeypatch: pytest.MonkeyPatch) -> Any:
    module = ModuleType("faiss")
    vars(module).update(StandardGpuResources=Resources, GpuIndexFlatL2=Index)
    monkeypatch.setitem(sys.modules, "faiss", module)
    monkeypatch.setattr(FaissGpuSearch, "_resources", None)
    monkeypatch.setattr(Resources, "made", 0)
    return SimpleNamespace(get=lambda: FaissGpuSearch._resources)


def test_banks_share_one_resource_that_one_thread_uses_at_a_time(resources: Any) -> None:
    rng = np.random.default_rng(0)
    banks = [rng.random((20, 4)).astype(np.float32) for _ in range(8)]
    start = threading.Barrier(8)

    def load_search_and_drop(bank: Any) -> None:
        start.wait()
        for _ in range(3):
            search = FaissGpuSearch(bank)
            assert not search.search(bank[:3], 1).any()
            del search

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(load_search_and_drop, banks))
    used = resources.get()
    assert Resources.made == 1
    assert used.overlaps == []
    assert {use: used.uses.count(use) for use in ("make", "add", "search", "free")} == dict.fromkeys(
        ("make", "add", "search", "free"), 24
    )
