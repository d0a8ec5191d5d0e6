"""Packages of the npm registry that some tests use, kept under .cache and never installed."""

import re
import shutil
import subprocess
from pathlib import Path

import pytest
from filelock import FileLock

PROJECT = Path(__file__).resolve().parent.parent
TYPESCRIPT = "typescript@5.9.3"
AXE = "axe-core@4.14.1"


def npm_package(spec: str) -> Path:
    """Folder of a package of the npm registry, kept under .cache. Skips the test where it cannot be fetched."""
    if shutil.which("npm") is None:
        pytest.skip(f"npm is not installed, and {spec} is not kept")
    kept = PROJECT / ".cache" / "npm" / re.sub(r"\W+", "-", spec).strip("-")
    kept.mkdir(parents=True, exist_ok=True)
    with FileLock(f"{kept}.lock"):
        if not (kept / "package").is_dir():
            command = ["npm", "pack", "--silent", spec]
            done = subprocess.run(command, cwd=kept, capture_output=True, text=True, timeout=300)
            if done.returncode != 0:
                pytest.skip(f"npm cannot fetch {spec}: {done.stderr.strip()[-200:]}")
            shutil.unpack_archive(kept / done.stdout.split()[-1], kept)
            folders = [each for each in kept.iterdir() if each.is_dir()]
            folders[0].rename(kept / "package")
    return kept / "package"
