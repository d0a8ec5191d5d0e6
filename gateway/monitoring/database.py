"""A SQLite database of this host that may be lost: shared by processes, replaced where it is damaged.

The write-ahead log lets others read while one writes. ``synchronous=OFF`` keeps disk flushes off the inspection path: a
killed process loses nothing, a power failure may damage the database, and a damaged database is replaced by an empty
one.
"""

import fcntl
import logging
import os
import sqlite3
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

log = logging.getLogger(__name__)

_T = TypeVar("_T")

_DAMAGED = (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB)
_BUSY_S = 1.0
"""Longest wait for another process that writes."""


@dataclass(frozen=True, slots=True)
class Schema:
    """What a database holds."""

    version: int
    make: Sequence[str]
    """Statements that make it, in place of whatever another version made."""
    upgrades: Sequence[tuple[int, Sequence[str]]] = ()
    """Statements that keep what an earlier version holds, by that version."""
    pragmas: Sequence[str] = ()
    """Of a new database, before its tables."""

    def statements(self, found: int) -> Sequence[str]:
        """Return what brings a database of another version to this one."""
        return dict(self.upgrades).get(found, self.make)


class Database:
    """One connection for writing and one for reading, opened on first use.

    A connection is opened again when the file was replaced, and the file is replaced when SQLite finds it damaged.
    """

    def __init__(
        self, path: Path, schema: Schema, lost: str, on_new: Callable[[Path], None] = lambda folder: None
    ) -> None:
        """Set up; no file is opened before the first use.

        Args:
            path: of the file. Its folder is made with it.
            schema: what it holds.
            lost: what is lost where a damaged file is replaced, for the log.
            on_new: is called with the folder once a new file is there.
        """
        self.path = path
        self._lost = lost
        self._writing = _Connection(path, schema, on_new)
        self._reading = _Connection(path, schema, on_new)

    def write(self, work: Callable[[sqlite3.Connection], object]) -> None:
        """Run `work` with the connection for writing.

        Raises:
            OSError, sqlite3.Error: nothing was written.
        """
        self._run(self._writing, work)

    def read(self, work: Callable[[sqlite3.Connection], _T]) -> _T | None:
        """Return what `work` returns, or None if there is no database."""
        return self._run(self._reading, work) if self.path.exists() else None

    def close(self) -> None:
        """Close it. It is opened again on the next use."""
        self._writing.close()
        self._reading.close()

    def _run(self, connection: "_Connection", work: Callable[[sqlite3.Connection], _T]) -> _T:
        try:
            return connection.run(work)
        except sqlite3.DatabaseError as error:
            if error.sqlite_errorcode & 0xFF not in _DAMAGED:
                raise
            self._replace(error)
            return connection.run(work)

    def _replace(self, error: sqlite3.DatabaseError) -> None:
        """Remove a damaged database, unless another process has already replaced it."""
        seen = {self._writing.identity, self._reading.identity}
        self.close()
        with _locked(self.path):
            if _identity(self.path) in seen:
                log.warning("%s is damaged (%s): %s", self.path, error, self._lost)
                for suffix in ("", "-wal", "-shm"):
                    self.path.with_name(self.path.name + suffix).unlink(missing_ok=True)


class _Connection:
    """A connection to the database file, shared by the threads of a process."""

    def __init__(self, path: Path, schema: Schema, on_new: Callable[[Path], None]) -> None:
        self._path = path
        self._schema = schema
        self._on_new = on_new
        self._lock = threading.Lock()
        self._open: sqlite3.Connection | None = None
        self.identity: tuple[int, int] | None = None
        """Device and inode of the opened file."""

    def run(self, work: Callable[[sqlite3.Connection], _T]) -> _T:
        with self._lock:
            if self._open is None or _identity(self._path) != self.identity:
                self._close()
                self._connect()
            assert self._open is not None
            return work(self._open)

    def close(self) -> None:
        with self._lock:
            self._close()

    def _close(self) -> None:
        if self._open is not None:
            with suppress(sqlite3.Error):
                self._open.close()
        self._open = None

    def _connect(self) -> None:
        self._path.parent.mkdir(parents=True, exist_ok=True)
        with _locked(self._path):
            is_new = not self._path.exists()
            connection = sqlite3.connect(self._path, timeout=_BUSY_S, isolation_level=None, check_same_thread=False)
            self.identity = _identity(self._path)
            try:
                for pragma in self._schema.pragmas if is_new else ():
                    connection.execute(pragma)
                connection.execute("PRAGMA journal_mode=WAL")
                connection.execute("PRAGMA synchronous=OFF")
                (version,) = connection.execute("PRAGMA user_version").fetchone()
                if version != self._schema.version:
                    make = self._schema.statements(version)
                    done = f"PRAGMA user_version={self._schema.version};"
                    connection.executescript(" ".join(("BEGIN;", *make, done, "COMMIT;")))
            except BaseException:
                connection.close()
                raise
            self._open = connection
            if is_new:
                self._on_new(self._path.parent)


def _identity(path: Path) -> tuple[int, int] | None:
    try:
        status = path.stat()
    except FileNotFoundError:
        return None
    return status.st_dev, status.st_ino


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    """Hold a lock against other processes that create or replace the database."""
    with closing(os.fdopen(os.open(path.with_suffix(".lock"), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644))) as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield
