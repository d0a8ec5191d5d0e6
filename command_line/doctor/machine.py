"""What this machine has: packages, the processor, a GPU."""

import importlib.metadata
import os
import platform
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

from command_line.doctor.check import Check, note, ok

_PACKAGES = ("numpy", "opencv-python-headless", "openvino")
_ONE_OF = (("onnxruntime-gpu", "onnxruntime"), ("faiss-gpu-cu12", "faiss-cpu"))
_OPTIONAL = ("tritonclient", "torch", "timm")
_FLAGS = ("avx2", "avx512f", "avx512_vnni", "avx512_bf16", "amx_bf16", "asimd", "bf16")
_NVIDIA_SMI_S = 20


def machine_checks() -> Iterator[Check]:
    """Look at packages, the processor and the GPU."""
    yield _packages()
    yield _processor()
    gpus = gpu_names()
    yield ok("GPU", "; ".join(gpus)) if gpus else ok("GPU", "none: the processor computes")


def gpu_names() -> list[str]:
    """Return the NVIDIA GPUs whose driver answers, or the device if only that is there."""
    program = shutil.which("nvidia-smi")
    if program is not None:
        try:
            done = subprocess.run(  # noqa: S603 - a fixed command
                [program, "--query-gpu=name,driver_version,memory.total", "--format=csv,noheader"],
                capture_output=True,
                text=True,
                timeout=_NVIDIA_SMI_S,
            )
        except (OSError, subprocess.TimeoutExpired):
            done = None
        if done is not None and done.returncode == 0:
            return [line.strip() for line in done.stdout.splitlines() if line.strip()]
    return ["an NVIDIA device whose driver does not answer"] if Path("/dev/nvidiactl").exists() else []


def version_of(package: str) -> str | None:
    """Return the version of an installed package."""
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def _packages() -> Check:
    named = [
        *_PACKAGES,
        *(next((each for each in group if version_of(each)), group[-1]) for group in _ONE_OF),
        *_OPTIONAL,
    ]
    found = {name: version_of(name) for name in named}
    said = ", ".join([f"Python {platform.python_version()}", *(f"{name} {v}" for name, v in found.items() if v)])
    absent = [name for name in (*_PACKAGES, "faiss-cpu") if name in found and found[name] is None]
    if absent:
        return note(
            "packages", f"{said}; without {', '.join(absent)}", "Install the gateway: pip install . in its checkout."
        )
    return ok("packages", said)


def _processor() -> Check:
    info = Path("/proc/cpuinfo").read_text() if Path("/proc/cpuinfo").exists() else ""
    lines = [line.partition(":") for line in info.splitlines()]
    name = next((value.strip() for key, _, value in lines if key.strip() == "model name"), platform.processor())
    flags = next((value.split() for key, _, value in lines if key.strip() in ("flags", "Features")), [])
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    has = " ".join(flag for flag in _FLAGS if flag in flags)
    return ok("processor", f"{name or platform.machine()}, {cores} cores{', ' if has else ''}{has}")
