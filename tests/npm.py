"""Packages of the npm registry that some tests use, kept under .cache."""

import json
import re
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path

import pytest
from filelock import FileLock

PROJECT = Path(__file__).resolve().parent.parent
TYPESCRIPT = "typescript@5.9.3"
AXE = "axe-core@4.14.1"
_NOTHING = "npm:tslib@2.8.1"
"""A small package that stands in for one that is not used."""


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


def npm_program(package: str, version: str, *, unused: Sequence[str] = ()) -> Path:
    """Folder of a package of the npm registry beside all that it needs, kept under .cache. No script of it is run.

    Args:
        package: name of the package.
        version: its version.
        unused: packages that it names and does not need for what the test does; they are left out.
    """
    if shutil.which("npm") is None:
        pytest.skip(f"npm is not installed, and {package} is not kept")
    kept = PROJECT / ".cache" / "npm" / f"{package}-{version}-installed"
    kept.mkdir(parents=True, exist_ok=True)
    with FileLock(f"{kept}.lock"):
        if not (kept / "installed").exists():
            wanted = {"dependencies": {package: version}, "overrides": dict.fromkeys(unused, _NOTHING)}
            (kept / "package.json").write_text(json.dumps({"private": True, **wanted}))
            command = ["npm", "install", "--silent", "--no-audit", "--no-fund", "--ignore-scripts", "--omit=optional"]
            done = subprocess.run(command, cwd=kept, capture_output=True, text=True, timeout=300)
            if done.returncode != 0:
                pytest.skip(f"npm cannot install {package}: {done.stderr.strip()[-200:]}")
            (kept / "installed").touch()
    return kept / "node_modules" / package
