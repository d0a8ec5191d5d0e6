"""Run anomalib's `KCenterGreedy` on a file of tokens in .venv-bench-anomalib; print seconds and centres."""

import importlib.metadata
import importlib.util
import json
import sys
import time
import types
from pathlib import Path
from typing import Any

import numpy as np
import torch


def load(package: str, module: str) -> Any:
    """Import one module of anomalib under its own name, without its packages' other imports."""
    root = importlib.metadata.distribution("anomalib").locate_file("")
    parts = package.split(".")
    for n in range(1, len(parts) + 1):
        name = ".".join(parts[:n])
        if name not in sys.modules:
            sys.modules[name] = types.ModuleType(name)
    path = Path(str(root)).joinpath(*parts, f"{module}.py")
    spec = importlib.util.spec_from_file_location(f"{package}.{module}", path)
    assert spec is not None
    assert spec.loader is not None
    loaded = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = loaded
    spec.loader.exec_module(loaded)
    return loaded


def main() -> None:
    """Run with two arguments: a .npy file of tokens [N, D], and the number of centres."""
    path, n_centres = sys.argv[1], int(sys.argv[2])
    projection = load("anomalib.models.components.dimensionality_reduction", "random_projection")
    package: Any = sys.modules["anomalib.models.components.dimensionality_reduction"]
    package.SparseRandomProjection = projection.SparseRandomProjection
    greedy = load("anomalib.models.components.sampling", "k_center_greedy")
    torch.manual_seed(0)
    tokens = torch.from_numpy(np.load(path).astype(np.float32))
    sampler = greedy.KCenterGreedy(embedding=tokens, sampling_ratio=(n_centres + 0.5) / len(tokens))
    start = time.perf_counter()
    indices = sampler.select_coreset_idxs()
    seconds = time.perf_counter() - start
    version = importlib.metadata.version("anomalib")
    json.dump({"version": version, "seconds": seconds, "indices": indices}, sys.stdout)


if __name__ == "__main__":
    main()
