"""Compare scores and AUROC of the served precision and search with ONNX Runtime fp32 and ``IndexFlatL2``."""

import argparse
from pathlib import Path
from typing import Any

import cv2
import faiss
import numpy as np
from numpy.typing import NDArray
from PIL import Image
from sklearn.metrics import roc_auc_score

from bench.report import Row
from bench.tokens import Tokens
from gateway.detectors.memory_bank.bank import build_memory_bank, patch_distances
from gateway.detectors.memory_bank.search.backend import build_search
from gateway.images.decoding import to_model_input
from gateway.networks.embedded.engine import open_network
from gateway.networks.embedded.runtimes import Network, OnnxRuntimeNetwork
from postprocess.anomaly_map import anomaly_map, score, upsample

HELP = "scores and image AUROC of the served way against plain fp32 (ONNX Runtime, IndexFlatL2), on the magnetic tiles"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of this sub-command."""
    parser.add_argument("--p-score", type=float, default=99.0)


def run(args: argparse.Namespace) -> tuple[str, list[Row]]:
    """Measure. Return the source of the tokens, and a row for each step from plain fp32 to what is served.

    Raises:
        SystemExit: the tiles are missing.
    """
    tokens = Tokens()
    train = sorted(tokens.data.glob("train/good/*"))
    test = sorted(tokens.data.glob("test/*/*"))
    if not train:
        raise SystemExit("error: the magnetic tiles are missing; set MAGNETIC_TILE_DIR to their folder")
    is_ng = np.array([path.parent.name != "good" for path in test])
    plain = OnnxRuntimeNetwork(tokens.folder, tokens.exported, device="cpu")
    served = open_network(tokens.folder, tokens.model, tokens.settings)
    by_plain = _tokens(plain, tokens, [*train, *test])
    by_served = _tokens(served, tokens, [*train, *test])
    n_train = len(train)
    chosen = {id(each): _centres(each[:n_train]) for each in (by_plain, by_served)}
    sizes = [_size(path) for path in test]

    def scores(found: NDArray[np.float32], centres: NDArray[np.int64], *, flat: bool) -> NDArray[np.float64]:
        bank = found[:n_train].astype(np.float16).reshape(-1, found.shape[2])[centres]
        search: Any = _Flat(bank) if flat else build_search(bank)
        return np.array(
            [_score(search, each, tokens, wh, args.p_score) for each, wh in zip(found[n_train:], sizes, strict=True)]
        )

    ways = {
        f"{plain.runtime}, IndexFlatL2": scores(by_plain, chosen[id(by_plain)], flat=True),
        # The choice of a coreset amplifies rounding. With the same centres, only precision and search differ.
        f"{served.runtime}, served search, the same centres": scores(by_served, chosen[id(by_plain)], flat=False),
        f"{served.runtime}, IndexFlatL2, its own centres": scores(by_served, chosen[id(by_served)], flat=True),
        f"{served.runtime}, served search, its own centres": scores(by_served, chosen[id(by_served)], flat=False),
    }
    reference = next(iter(ways.values()))
    rows = []
    for name, found in ways.items():
        difference = np.abs(found - reference)
        rows.append(
            {
                "way": name,
                "images": len(test),
                "auroc": round(float(roc_auc_score(is_ng, found)), 4),
                "largest_difference": round(float(difference.max()), 5),
                "mean_difference": round(float(difference.mean()), 5),
            }
        )
    return tokens.source, rows


def _tokens(network: Network, tokens: Tokens, paths: list[Path]) -> NDArray[np.float32]:
    size = tokens.model.input_size
    found = np.empty((len(paths), tokens.model.n_tokens, tokens.model.dim), np.float32)
    for i, path in enumerate(paths):
        grey = cv2.imread(str(path), cv2.IMREAD_GRAYSCALE)
        if grey is None:
            raise FileNotFoundError(f"{path} cannot be read")
        found[i] = network.run(to_model_input(np.asarray(grey, np.uint8), size)[None])[0]
    return found


def _centres(tokens: NDArray[np.float32]) -> NDArray[np.int64]:
    bank = build_memory_bank(tokens.astype(np.float16), 0.02, 0)
    centres: NDArray[np.int64] = bank.image_index.astype(np.int64) * tokens.shape[1] + bank.token_index
    return centres


def _score(search: Any, tokens: NDArray[np.float32], source: Tokens, size_wh: tuple[int, int], p_score: float) -> float:
    distances = patch_distances(search, tokens, 1)
    return score(upsample(anomaly_map(distances, source.model.token_hw), size_wh), p_score)


def _size(path: Path) -> tuple[int, int]:
    with Image.open(path) as image:
        return image.size


class _Flat:
    """FAISS ``IndexFlatL2`` without changes."""

    def __init__(self, bank: NDArray[np.float16]) -> None:
        self._index = faiss.IndexFlatL2(bank.shape[1])
        self._index.add(bank.astype(np.float32))

    def search(self, queries: NDArray[np.float32], k: int) -> NDArray[np.float32]:
        squared, _ = self._index.search(queries, k)
        return np.asarray(np.sqrt(np.maximum(squared, 0)), np.float32)
