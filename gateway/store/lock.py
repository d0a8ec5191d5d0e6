"""One writer at a time, among the threads of this process, other processes, and other hosts of one folder."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

from gateway.errors import OverloadedError
from gateway.store.atomic import storage_errors


@contextmanager
def held(path: Path, what: str, timeout_s: float) -> Iterator[None]:
    """Hold a lock file; it is free again when its holder's process ends, however that ends.

    Args:
        path: of the lock file.
        what: is held, for the message.
        timeout_s: how long to wait for whoever holds it.

    Raises:
        OverloadedError: somebody else held it all that time.
        StorageFullError: its folder cannot be written.
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
