"""Programs of Debian packages for tests: installed ones, or packages unpacked under .cache."""

import os
import shutil
import subprocess
import tempfile
import zlib
from pathlib import Path

import pytest
from filelock import FileLock

_CACHE = Path(__file__).resolve().parent.parent / ".cache" / "debian"
PACKAGES_S = 600
_APT = ("-o", "Acquire::Retries=1", "-o", "Acquire::http::Timeout=30", "-o", "Acquire::https::Timeout=30")


def program(name: str, package: str) -> str:
    """Return the path of a program that needs no other file of its package. Skip the test if it is unavailable.

    Unpacking starts no service and leaves the system as it is. As root, apt's lists are updated if necessary.
    """
    installed = shutil.which(name)
    if installed is not None:
        return installed
    return str(unpacked(package) / "usr" / "bin" / name)


def unpacked(*packages: str) -> Path:
    """Return a folder with the files of packages, kept under .cache. Skip the test if they are unavailable."""
    others = f"-{zlib.crc32(' '.join(packages).encode()):08x}" if len(packages) > 1 else ""
    target = _CACHE / f"{packages[0]}{others}"
    _CACHE.mkdir(parents=True, exist_ok=True)
    with FileLock(f"{target}.lock"):
        if not target.is_dir():
            try:
                reason = _unpack(packages, target)
            except subprocess.TimeoutExpired as error:
                reason = f"{error.cmd[0]} took longer than {error.timeout:g} s"
            if reason is not None:
                pytest.skip(f"Debian's package {packages[0]} is not installed and cannot be fetched: {reason}")
    return target


def _unpack(packages: tuple[str, ...], target: Path) -> str | None:
    """Return why it failed, or None."""
    if shutil.which("apt-get") is None or shutil.which("dpkg-deb") is None:
        return "this is not Debian"
    with tempfile.TemporaryDirectory(dir=_CACHE) as folder:
        fetched = _run("apt-get", *_APT, "download", *packages, cwd=folder)
        if fetched.returncode != 0 and updated():
            fetched = _run("apt-get", *_APT, "download", *packages, cwd=folder)
        files = list(Path(folder).glob("*.deb"))
        if len(files) < len(packages):
            return fetched.stderr.strip()[-200:] or f"apt-get downloaded {len(files)} of {len(packages)} packages"
        content = Path(folder) / "content"
        for file in files:
            done = _run("dpkg-deb", "--extract", str(file), str(content), cwd=folder)
            if done.returncode != 0:
                return done.stderr.strip()[-200:]
        shutil.rmtree(target, ignore_errors=True)
        content.rename(target)
    return None


def updated() -> bool:
    """Fetch apt's lists; only root may. Return whether it was tried."""
    if os.geteuid() != 0:
        return False
    _run("apt-get", *_APT, "update", cwd=str(_CACHE.parent))
    return True


def _run(*command: str, cwd: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        command, cwd=cwd, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=PACKAGES_S
    )
