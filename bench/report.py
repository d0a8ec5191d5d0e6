"""Shared by all benchmarks: interleaved timing, medians with spread, a table, and JSON."""

import os
import platform
import time
from collections.abc import Callable, Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

Row = dict[str, Any]
_PACKAGES = ("numpy", "faiss-cpu", "openvino", "scikit-learn")


def interleave(contenders: Mapping[str, Callable[[int], object]], rounds: int, pause_s: float = 0.02) -> dict[str, Any]:
    """Run every contender once per round, so that other load of the machine affects all of them.

    Args:
        contenders: by name, called with the number of the round. Round -1 warms up and is not counted.
        rounds: number of counted rounds.
        pause_s: pause before each call, until the spinning threads of the last call sleep.

    Returns:
        Seconds by name, float64 [rounds].
    """
    seconds = {name: np.empty(rounds) for name in contenders}
    for index in range(-1, rounds):
        for name, call in contenders.items():
            time.sleep(pause_s)
            start = time.perf_counter()
            call(index)
            if index >= 0:
                seconds[name][index] = time.perf_counter() - start
    return seconds


def spread(seconds: Any, reference: Any) -> Row:
    """Return median and quartiles in milliseconds, and the speed relative to the reference in the same rounds."""
    low, median, high = (round(float(ms), 2) for ms in np.percentile(seconds, (25, 50, 75)) * 1e3)
    return {"ms": median, "ms_q1": low, "ms_q3": high, "times_faster": round(float(np.median(reference / seconds)), 2)}


def table(rows: Sequence[Row]) -> str:
    """Return the rows as a table, with columns in the order of the first row."""
    names = list(rows[0])
    cells = [names, *([_text(row.get(name)) for name in names] for row in rows)]
    widths = [max(len(line[i]) for line in cells) for i in range(len(names))]
    return "\n".join("  ".join(cell.rjust(width) for cell, width in zip(line, widths, strict=True)) for line in cells)


def machine() -> Row:
    """Return a description of the machine."""
    info = Path("/proc/cpuinfo").read_text() if Path("/proc/cpuinfo").exists() else ""
    flags = next((line for line in info.splitlines() if line.startswith("flags")), "").split()
    names = [line.partition(":")[2].strip() for line in info.splitlines() if line.startswith("model name")]
    versions = {}
    for package in _PACKAGES:
        try:
            versions[package] = version(package)
        except ModuleNotFoundError:
            continue
    return {
        "processor": names[0] if names else platform.processor(),
        "cores": os.cpu_count(),
        "has": [flag for flag in ("avx2", "avx512f", "avx512_vnni", "avx512_bf16", "amx_bf16") if flag in flags],
        "load": round(os.getloadavg()[0], 1),
        "python": platform.python_version(),
        "versions": versions,
    }


def _text(value: Any) -> str:
    if value is None:
        return ""
    return f"{value:.3g}" if isinstance(value, float) and abs(value) < 0.01 and value else str(value)
