"""Atomic writes: after a crash a file is complete or absent. A full disk is reported as an error of its own."""

import errno
import os
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from gateway.errors import StorageFullError
from gateway.store.place import Place

_CANNOT_WRITE = {errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES, errno.EPERM, errno.EFBIG}
_STALE_READS = 4


@contextmanager
def storage_errors(folder: str = "the models folder") -> Iterator[None]:
    """Turn an operating system's refusal to write into a `StorageFullError` that names the folder."""
    try:
        yield
    except OSError as error:
        if error.errno in _CANNOT_WRITE:
            raise StorageFullError(f"cannot write to {folder}: {error.strerror}") from error
        raise


def read_replaced(path: Place) -> bytes:
    """Return the bytes of a file that another host may replace at the same time.

    Over NFS an open handle of the old file may become stale. The read is then repeated and finds the new file.
    """
    for _ in range(_STALE_READS):
        try:
            return path.read_bytes()
        except OSError as error:
            if error.errno != errno.ESTALE:
                raise
    return path.read_bytes()


def write_file(path: Path, data: bytes) -> None:
    """Write a new file and sync it to disk. Use it for files that are not read before another file names them."""
    with path.open("wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())


def replace_file(path: Path, data: bytes) -> None:
    """Replace a file: a reader sees the old content or the new content, both complete."""
    aside = path.with_name(f".{path.name}.{uuid.uuid4().hex}.tmp")
    try:
        write_file(aside, data)
        aside.replace(path)
    except OSError:
        aside.unlink(missing_ok=True)
        raise
    sync_folder(path.parent)


def sync_folder(path: Path) -> None:
    """Make renames and new names in a folder survive a power cut."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
