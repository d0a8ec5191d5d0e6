"""Compare the coreset selection with the plain greedy algorithm and, in a separate environment, with anomalib's."""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from threadpoolctl import threadpool_limits

from bench.report import Row
from bench.tokens import Tokens
from gateway.detectors.memory_bank.bank import MemoryBank, leave_one_out_distances
from gateway.detectors.memory_bank.coreset import k_center_greedy
from gateway.detectors.memory_bank.search.projected import ProjectedSearch
from gateway.settings import HOME

HELP = "k-center greedy, against the plain algorithm and anomalib's"
_PEER = Path(__file__).with_name("peer_anomalib.py")
_PEER_PACKAGES = ("torch", "numpy", "scikit-learn", "tqdm")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of this sub-command."""
    sizes = ["50:729", "200:1458"]
    parser.add_argument("--sizes", nargs="+", default=sizes, metavar="IMAGES:CENTRES")
    parser.add_argument("--peer", choices=["anomalib"], help="installed in .venv-bench-anomalib on first use")
    parser.add_argument("--rounds", type=int, default=3, help="of all; ours runs twice in each")


def run(args: argparse.Namespace) -> tuple[str, list[Row]]:
    """Measure. Return the source of the tokens, and a row for each size and algorithm."""
    tokens = Tokens()
    rows = []
    for size in args.sizes:
        n_images, n_centres = (int(part) for part in size.split(":"))
        by_image = tokens.of_images(n_images)
        flat = np.ascontiguousarray(by_image).reshape(-1, by_image.shape[2])
        seconds: dict[str, list[float]] = {"ours": [], "ours: leave one out": [], "plain": []}
        chosen: dict[str, NDArray[np.int64]] = {}
        for _ in range(args.rounds):
            _ours(flat, n_centres, seconds, chosen)
            start = time.perf_counter()
            with threadpool_limits(os.cpu_count(), "blas"):
                chosen["plain"] = plain_greedy(flat.astype(np.float32), n_centres)
            seconds["plain"].append(time.perf_counter() - start)
            if args.peer:
                name, peer_seconds, indices = _anomalib(flat, n_centres)
                seconds.setdefault(name, []).append(peer_seconds)
                chosen[name] = indices
            _ours(flat, n_centres, seconds, chosen)
            centres = chosen["ours"]
            bank = MemoryBank(
                flat[centres], (centres // by_image.shape[1]).astype(np.int32), centres.astype(np.int32), 0.0
            )
            start = time.perf_counter()
            leave_one_out_distances(bank, np.asarray(by_image), 1)
            seconds["ours: leave one out"].append(time.perf_counter() - start)
        ours = float(np.median(seconds["ours"]))
        for name, measured in seconds.items():
            low, median, high = (float(s) for s in np.percentile(measured, (0, 50, 100)))
            rows.append(
                {
                    "tokens": len(flat),
                    "centres": len(chosen[name]) if name in chosen else None,
                    "algorithm": name,
                    "seconds": round(median, 3),
                    "least": round(low, 3),
                    "most": round(high, 3),
                    "ours_times_faster": round(median / ours, 2),
                    "covering_radius": round(covering_radius(flat, chosen[name]), 4) if name in chosen else None,
                }
            )
    return tokens.source, rows


def plain_greedy(tokens: NDArray[np.float32], n_centres: int) -> NDArray[np.int64]:
    """Compare every token with each new centre, by a matrix-vector product in float32."""
    farthest = int(np.random.default_rng(0).integers(len(tokens)))
    squares = np.einsum("nd,nd->n", tokens, tokens)
    nearest = np.full(len(tokens), np.inf, np.float32)
    indices = np.empty(n_centres, np.int64)
    for chosen in range(n_centres):
        indices[chosen] = farthest
        squared = tokens @ tokens[farthest]
        squared *= -2.0
        squared += squares
        squared += squares[farthest]
        np.minimum(nearest, squared, out=nearest)
        nearest[farthest] = 0.0
        farthest = int(np.argmax(nearest))
    return indices


def covering_radius(tokens: NDArray[np.float16], indices: NDArray[np.int64]) -> float:
    """Return the distance of the farthest token to its nearest centre, measured in the same way for all algorithms."""
    search = ProjectedSearch(tokens[indices])
    blocks = (tokens[i : i + 8192].astype(np.float32) for i in range(0, len(tokens), 8192))
    return max(float(search.search(block, 1).max()) for block in blocks)


def _ours(
    tokens: NDArray[np.float16], n_centres: int, seconds: dict[str, list[float]], chosen: dict[str, NDArray[np.int64]]
) -> None:
    start = time.perf_counter()
    chosen["ours"] = k_center_greedy(tokens, n_centres, 0).indices
    seconds["ours"].append(time.perf_counter() - start)


def _anomalib(tokens: NDArray[np.float16], n_centres: int) -> tuple[str, float, NDArray[np.int64]]:
    """Return the name with its version, the seconds of the selection alone, and the centres."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "tokens.npy"
        np.save(path, tokens)
        command = [str(_peer_python()), str(_PEER), str(path), str(n_centres)]
        answer = subprocess.run(command, check=True, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
    found = json.loads(answer.stdout)
    return f"anomalib {found['version']}", found["seconds"], np.array(found["indices"])


def _peer_python() -> Path:
    environment = HOME / ".venv-bench-anomalib"
    python = environment / "bin" / "python"
    done = environment / ".installed"
    if not done.exists():
        print(f"installing anomalib in {environment.name}", file=sys.stderr)
        pip = [str(python), "-m", "pip", "install", "-q", "--disable-pip-version-check"]
        constraints = ["-c", str(HOME / "constraints.txt")]
        for command in (
            [sys.executable, "-m", "venv", str(environment)],
            [*pip, *constraints, *_PEER_PACKAGES],
            # peer_anomalib.py imports two modules only, so anomalib's other requirements are not installed.
            [*pip, "--no-deps", "anomalib==2.7.0"],
        ):
            subprocess.run(command, check=True, stdout=sys.stderr, cwd=environment.parent.anchor)
        done.touch()
    return python
