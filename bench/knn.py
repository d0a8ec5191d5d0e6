"""Compare every nearest-neighbour search of the gateway with FAISS ``IndexFlatL2``."""

import argparse
import time
from collections.abc import Callable
from typing import Any

import faiss
import numpy as np
from numpy.typing import NDArray

from bench.report import Row, interleave, spread
from bench.tokens import Tokens
from gateway.detectors.memory_bank.search.backend import SearchBackend, build_search
from gateway.detectors.memory_bank.search.faiss_search import gpu_available
from gateway.detectors.memory_bank.search.protocol import NeighbourSearch

HELP = "nearest neighbours of one image's 729 tokens, against FAISS IndexFlatL2"
_QUERIES = 6
_REFERENCE = "IndexFlatL2"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of this sub-command."""
    parser.add_argument("--banks", type=int, nargs="+", default=[700, 2000, 10_000, 50_000], metavar="M")
    parser.add_argument("--k", type=int, nargs="+", default=[1, 3])
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--backends", nargs="+", default=None, help="default: all that are installed")


def run(args: argparse.Namespace) -> tuple[str, list[Row]]:
    """Measure. Return the source of the tokens, and a row for each bank, k and search."""
    tokens = Tokens()
    queries = tokens.of_last(_QUERIES)
    backends: list[SearchBackend] = args.backends or ["numpy", *(["faiss-gpu"] if gpu_available() else []), "sklearn"]
    rows = []
    for size in args.banks:
        bank = tokens.bank(size)
        index = faiss.IndexFlatL2(bank.shape[1])
        index.add(bank.astype(np.float32))
        searches: dict[str, NeighbourSearch] = {}
        loads = {}
        for backend in backends:
            start = time.perf_counter()
            search = build_search(bank, backend)
            loads[search.name] = round((time.perf_counter() - start) * 1e3)
            searches[search.name] = search
        for k in args.k:
            contenders = {_REFERENCE: _raw(index, queries, k)}
            contenders |= {name: _ours(search, queries, k) for name, search in searches.items()}
            seconds = interleave(contenders, args.rounds)
            for name in contenders:
                row = {"bank": size, "k": k, "search": name, **spread(seconds[name], seconds[_REFERENCE])}
                if name in searches:
                    row["error"] = _error(searches[name], bank, queries[0], k)
                    row["load_ms"] = loads[name]
                    row["MB"] = round((bank.nbytes + searches[name].n_bytes) / 1e6, 1)
                else:
                    row |= {"error": None, "load_ms": None, "MB": round(bank.size * 4e-6, 1)}
                rows.append(row)
    return f"{queries.shape[1]} queries; {tokens.source}", rows


def _raw(index: Any, queries: NDArray[np.float32], k: int) -> Callable[[int], object]:
    return lambda turn: index.search(queries[turn % _QUERIES], k)


def _ours(search: NeighbourSearch, queries: NDArray[np.float32], k: int) -> Callable[[int], object]:
    return lambda turn: search.search(queries[turn % _QUERIES], k)


def _error(search: NeighbourSearch, bank: NDArray[np.float16], queries: NDArray[np.float32], k: int) -> float:
    """Return the largest difference from float64, over queries and tokens of the bank."""
    asked = np.concatenate([queries[::16], bank[:16].astype(np.float32)])
    found = search.search(asked, k)
    whole = bank.astype(np.float64)
    exact = [np.sort(np.sqrt(((whole - query) ** 2).sum(axis=1)))[:k] for query in asked.astype(np.float64)]
    return float(np.abs(found - np.array(exact)).max())
