"""Versions of a model in a repository. A new version appears complete or not at all."""

import logging
import os
import re
import secrets
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

from export.errors import ExportError

DEFAULT_REPOSITORY = Path(__file__).resolve().parent.parent / "model_repository"

# With `.tmp-`, both Triton, which serves numbered folders, and git ignore what is not published.
_ASIDE = ".tmp-"
_LOCK = ".tmp-lock"

_logger = logging.getLogger(__name__)


def check_name(name: str) -> None:
    """Check that `name` can be the folder of a model.

    Raises:
        ExportError: it cannot.
    """
    if not re.fullmatch(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,127}", name):
        raise ExportError(
            f"{name[:150]!r} is not a model name: use at most 128 characters of A-Z, a-z, 0-9, '_', '-' and '.'"
        )


@contextmanager
def locked(model_folder: Path) -> Iterator[None]:
    """Hold the lock of `model_folder`, and remove what a killed export left there.

    Raises:
        ExportError: another export holds the lock.
    """
    lock = FileLock(model_folder / _LOCK)
    try:
        lock.acquire(timeout=0)
    except Timeout:
        raise ExportError(f"another export is writing to {model_folder}: wait for it to end") from None
    try:
        for left in model_folder.glob(f"{_ASIDE}*"):
            if left.is_dir():  # its export is dead, or it would hold the lock
                _logger.info("removing %s, left by a killed export", left.name)
                shutil.rmtree(left)
        yield
    finally:
        lock.release()


@contextmanager
def aside(model_folder: Path) -> Iterator[Path]:
    """Make a temporary folder beside the versions. It is deleted afterwards unless it was moved into place."""
    folder = model_folder / f"{_ASIDE}{secrets.token_hex(4)}"
    folder.mkdir()
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def move_into_place(folder: Path, model_folder: Path) -> Path:
    """Make the complete `folder` the next version of `model_folder`. Return the folder of the version."""
    taken = [int(p.name) for p in model_folder.iterdir() if re.fullmatch(r"[0-9]{1,18}", p.name)]
    # A number that Triton has served stays bound to that model, even after its folder is deleted.
    config = model_folder / "config.pbtxt"
    if config.is_file():
        taken += [
            int(number) for number in re.findall(r'"fingerprint/(\d+)"', config.read_text("utf-8", errors="replace"))
        ]
    version = model_folder / str(max(taken, default=0) + 1)
    _sync(folder)
    folder.rename(version)
    _sync(model_folder)
    return version


def _sync(folder: Path) -> None:
    """Wait until the entries of a folder are on the disk."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
