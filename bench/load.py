"""A version loaded from disk, as an inspection does it that finds its ROI in no cache."""

import argparse
import hashlib
import tempfile
from collections.abc import Callable
from pathlib import Path

import numpy as np

from bench.report import Row, interleave
from bench.tokens import Tokens
from gateway.detectors.memory_bank.bank import MemoryBank
from gateway.detectors.memory_bank.detector import bank_files
from gateway.inspection.version_cache import load_version
from gateway.learning.build import Learned, Recipe, manifest_of
from gateway.networks.model_tiling import whole_images
from gateway.store.artifact_store import ArtifactStore
from gateway.store.manifest import OkImage, WeightsRecipe
from gateway.store.ok_maps import Frame, OkMaps
from gateway.store.place import Place
from gateway.store.roi_key import RoiKey

HELP = "a version loaded from disk, against reading its files and their SHA-256 alone"
_RATE = 0.02


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of this sub-command."""
    parser.add_argument("--banks", type=int, nargs="+", default=[437, 2000, 10_000], metavar="M")
    parser.add_argument("--rounds", type=int, default=25)


def run(args: argparse.Namespace) -> tuple[str, list[Row]]:
    """Measure; returns what the tokens are and a row for each bank."""
    tokens = Tokens()
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        store = ArtifactStore(Path(folder), keep_versions=2)
        for size in args.banks:
            key = RoiKey("bench", str(size))
            n_images = _publish(store, key, tokens, size)
            ref = store.current(key)
            files = [path for path in store.version_folder(key, ref.number).glob("*") if path.name != "index.faiss"]
            contenders = {"load": _load(store, key), "read": _read(files)}
            best = {name: float(s.min()) * 1e3 for name, s in interleave(contenders, args.rounds).items()}
            rows.append(
                {
                    "bank": size,
                    "images": n_images,
                    "MB": round(sum(store.storage.size(path) for path in files) / 1e6, 1),
                    "best_ms": round(best["load"], 1),
                    "read_and_hash_ms": round(best["read"], 1),
                    "held_MB": round(load_version(store, key, ref).n_bytes / 1e6, 1),
                }
            )
    return f"best of {args.rounds}; {tokens.source}", rows


def _load(store: ArtifactStore, key: RoiKey) -> Callable[[int], object]:
    return lambda _: load_version(store, key, store.current(key))


def _read(files: list[Place]) -> Callable[[int], object]:
    return lambda _: [hashlib.sha256(path.read_bytes()).hexdigest() for path in files]


def _publish(store: ArtifactStore, key: RoiKey, tokens: Tokens, size: int) -> int:
    """Publish a bank as a fit at the usual coreset rate would; returns the number of its images."""
    h, w = tokens.model.token_hw
    n_images = max(2, round(size / (_RATE * h * w)))
    places = np.arange(size, dtype=np.int32)
    bank = MemoryBank(tokens.bank(size), places % n_images, places % (h * w), 0.5)
    frames = (Frame((384, 384)),) * n_images
    ok_maps = OkMaps(np.random.default_rng(0).random((n_images, h * w), np.float32), (h, w), frames)
    learned = Learned(bank, None, ok_maps, [0.4] * n_images, n_images * h * w)
    recipe = Recipe(_RATE, 0, 1, 99.0, WeightsRecipe(), None, whole_images(tokens.model))
    names = [hashlib.sha256(str(i).encode()).hexdigest() for i in range(n_images)]
    images = [
        OkImage(
            sha256=name,
            file_name=f"{name[:8]}.png",
            extension="png",
            width=384,
            height=384,
            added_in=1,
            brightness=0.5,
            sharpness=0.5,
            pixels_sha256=name,
            bits=8,
        )
        for name in names
    ]
    manifest = manifest_of(key, 1, tokens.model, recipe, 0.2, images, [], learned)
    store.publish(key, manifest, bank_files(bank, manifest), None, ok_maps)
    return n_images
