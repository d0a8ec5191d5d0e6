"""Contents of a bucket on the gateway's disk, bounded by bytes. It may be deleted at any time."""

import logging
import os
import uuid
from collections import OrderedDict
from contextlib import suppress
from pathlib import Path
from threading import Lock

log = logging.getLogger(__name__)

_SMALL = 64 * 2**10
_IN_MEMORY = 16 * 2**20


class LocalCache:
    """Drops what was used least recently. All methods are thread-safe. Small contents are kept in memory too.

    Several processes may share the folder: each may then keep as many bytes. A full disk only makes the cache useless.
    """

    def __init__(self, folder: Path, max_bytes: int) -> None:
        """Read nothing yet. With 0 bytes nothing is kept: every content is read from the bucket."""
        self._folder = folder
        self._max_bytes = max_bytes
        self._lock = Lock()
        self._sizes: OrderedDict[str, int] | None = None
        """Of the files, the least recently used first; None before the first use."""
        self._n_bytes = 0
        self._memory: OrderedDict[str, bytes] = OrderedDict()
        self._memory_bytes = 0

    def get(self, name: str) -> bytes | None:
        """Return what is kept under a name of letters, digits, ``-`` and ``.``, or None."""
        if self._max_bytes == 0:
            return None
        with self._lock:
            self._use(name)
            if name in self._memory:
                return self._memory[name]
        try:
            data = (self._folder / name).read_bytes()
        except OSError:
            return None
        with suppress(OSError):
            os.utime(self._folder / name)
        with self._lock:
            self._remember(name, data)
        return data

    def put(self, name: str, data: bytes) -> None:
        """Keep a content."""
        if self._max_bytes == 0:
            return
        aside = self._folder / f".{uuid.uuid4().hex}.tmp"
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
            aside.write_bytes(data)
            aside.replace(self._folder / name)
        except OSError as error:
            with suppress(OSError):
                aside.unlink(missing_ok=True)
            log.warning("the cache of the store cannot be written: %s", error)
            return
        with self._lock:
            self._remember(name, data)
            sizes = self._known()
            self._n_bytes += len(data) - sizes.pop(name, 0)
            sizes[name] = len(data)
            while len(sizes) > 1 and self._n_bytes > self._max_bytes:
                oldest, size = sizes.popitem(last=False)
                self._n_bytes -= size
                with suppress(OSError):
                    (self._folder / oldest).unlink(missing_ok=True)

    def drop(self, name: str) -> None:
        """Remove a content, if it is there."""
        with suppress(OSError):
            (self._folder / name).unlink(missing_ok=True)
        with self._lock:
            self._memory_bytes -= len(self._memory.pop(name, b""))
            self._n_bytes -= self._known().pop(name, 0)

    def _use(self, name: str) -> None:
        for kept in (self._known(), self._memory):
            if name in kept:
                kept.move_to_end(name)

    def _remember(self, name: str, data: bytes) -> None:
        self._memory_bytes -= len(self._memory.pop(name, b""))
        if len(data) <= _SMALL:
            self._memory[name] = data
            self._memory_bytes += len(data)
        while self._memory_bytes > _IN_MEMORY:
            self._memory_bytes -= len(self._memory.popitem(last=False)[1])

    def _known(self) -> OrderedDict[str, int]:
        if self._sizes is None:
            found = []
            with suppress(OSError):
                for entry in os.scandir(self._folder):
                    with suppress(OSError):  # another process removed it
                        status = entry.stat()
                        found.append((status.st_mtime, entry.name, status.st_size))
            self._sizes = OrderedDict((name, size) for _, name, size in sorted(found))
            self._n_bytes = sum(self._sizes.values())
        return self._sizes
