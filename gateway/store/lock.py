"""One writer at a time, across threads, processes and hosts that share a folder."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

from gateway.errors import OverloadedError
from gateway.store.atomic import storage_errors


def is_held(path: Path) -> bool:
    """Return whether somebody holds a lock file. It may be free a moment later."""
    if not path.exists():
        return False
    lock = FileLock(path, timeout=0, thread_local=False)
    try:
        lock.acquire()
    except (Timeout, OSError):
        return True
    lock.release()
    return False


@contextmanager
def held(path: Path, what: str, timeout_s: float) -> Iterator[None]:
    """Hold a lock file. The operating system frees it when the process ends, even after a crash.

    Args:
        path: the lock file.
        what: name of the locked thing, for the message.
        timeout_s: longest time to wait for the lock.

    Raises:
        OverloadedError: another writer held the lock all that time.
        StorageFullError: the folder cannot be written.
    """
    with storage_errors():
        path.parent.mkdir(parents=True, exist_ok=True)
        lock = FileLock(path, timeout=timeout_s, thread_local=False)
        try:
            lock.acquire()
        except Timeout as error:
            raise OverloadedError(
                f"{what}: another fit or change of this ROI is still at work after {timeout_s:g} s",
                retry_after_s=max(1, round(timeout_s / 2)),
            ) from error
    try:
        yield
    finally:
        lock.release()
