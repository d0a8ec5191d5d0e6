"""The file of an audit trail: JSON lines that are appended and never changed."""

import fcntl
import os
from contextlib import suppress
from pathlib import Path


def append_line(path: Path, line: bytes) -> bool:
    """Append a line and sync it to disk. A line that a kill cut off is ended first.

    Returns:
        Whether the file is new.

    Raises:
        OSError: the file is as it was before.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o644)
    try:
        # A fit and a change of the stored images hold different locks.
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        size = os.fstat(descriptor).st_size
        torn = size > 0 and os.pread(descriptor, 1, size - 1) != b"\n"
        try:
            _write_all(descriptor, (b"\n" if torn else b"") + line + b"\n")
            os.fsync(descriptor)
        except OSError:
            with suppress(OSError):
                os.ftruncate(descriptor, size)
            raise
    finally:
        os.close(descriptor)
    return not size


def read_lines(path: Path) -> list[bytes]:
    """Return the lines, oldest first; none if there is no file."""
    try:
        return path.read_bytes().splitlines()
    except (FileNotFoundError, NotADirectoryError):
        return []


def _write_all(descriptor: int, data: bytes) -> None:
    while data:
        data = data[os.write(descriptor, data) :]
