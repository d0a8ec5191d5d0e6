"""Recent inspections of each ROI, in a SQLite database of this host.

The database outlives restarts, and all worker processes of a host share it. An inspection belongs to a version of the
memory bank, so a fit starts an empty window.

The write-ahead log lets a scrape read while an inspection is written. ``synchronous=OFF`` keeps disk flushes off the
inspection path: a killed process loses nothing, a power failure may damage the database, and a damaged database is
replaced by an empty one.
"""

import fcntl
import logging
import math
import os
import sqlite3
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from gateway.images.appearance import Look
from gateway.store.manifest import Manifest
from gateway.store.roi_key import RoiKey
from postprocess.verdict import Verdict

log = logging.getLogger(__name__)

_T = TypeVar("_T")

_SCHEMA_VERSION = 2
_SCHEMA = """
CREATE TABLE inspection (
    recipe_id TEXT NOT NULL,
    role_id TEXT NOT NULL,
    roi_id TEXT NOT NULL,
    n INTEGER NOT NULL,
    bank TEXT NOT NULL,
    time REAL NOT NULL,
    score REAL NOT NULL,
    threshold REAL,
    brightness REAL NOT NULL,
    sharpness REAL NOT NULL,
    verdict TEXT NOT NULL,
    comparable INTEGER NOT NULL,
    PRIMARY KEY (recipe_id, role_id, roi_id, n)
) WITHOUT ROWID;
"""
_ADD = """
INSERT INTO inspection
SELECT :recipe_id, :role_id, :roi_id, coalesce(max(n), 0) + 1, :bank, :time, :score, :threshold, :brightness,
    :sharpness, :verdict, :comparable
FROM inspection WHERE recipe_id = :recipe_id AND role_id = :role_id AND roi_id = :roi_id
"""
_TRIM = """
DELETE FROM inspection WHERE recipe_id = :recipe_id AND role_id = :role_id AND roi_id = :roi_id AND n <= (
    SELECT max(n) FROM inspection WHERE recipe_id = :recipe_id AND role_id = :role_id AND roi_id = :roi_id
) - :window
"""
_READ = """
SELECT time, score, threshold, brightness, sharpness, verdict, comparable FROM inspection
WHERE recipe_id = :recipe_id AND role_id = :role_id AND roi_id = :roi_id AND bank = :bank
ORDER BY n DESC LIMIT :window
"""
_OF_ROI = "FROM inspection WHERE recipe_id = :recipe_id AND role_id = :role_id AND roi_id = :roi_id"
_LAST = f"SELECT coalesce(max(n), 0) {_OF_ROI}"
_FORGET = f"DELETE {_OF_ROI}"
_UPGRADE = (
    "ALTER TABLE inspection RENAME TO earlier;",
    _SCHEMA,
    "INSERT INTO inspection SELECT 'default', * FROM earlier;",
    "DROP TABLE earlier;",
)
"""From version 1, which has no recipes."""
_DAMAGED = (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB)
_BUSY_S = 1.0
"""Longest wait for another process that writes."""


@dataclass(frozen=True, slots=True)
class Recent:
    """The last inspections of an ROI with one version of its bank, oldest first. Arrays are [n]."""

    time: NDArray[np.float64]
    """Seconds since 1970."""
    score: NDArray[np.float64]
    threshold: NDArray[np.float64]
    """NaN before calibration."""
    brightness: NDArray[np.float64]
    """Mean grey value, 0 to 255."""
    sharpness: NDArray[np.float64]
    verdict: NDArray[np.str_]
    """Values of `Verdict`."""
    scored_alike: NDArray[np.bool_]
    """Whether k, percentile and use of a shape were those of the OK images, so that the scores are comparable."""

    def __len__(self) -> int:
        return len(self.score)

    @property
    def judged_ok(self) -> NDArray[np.bool_]:
        """Bool [n]: inspections that were not judged NG. Before calibration, all of them."""
        return np.not_equal(self.verdict, "ng")

    @property
    def comparable(self) -> NDArray[np.bool_]:
        """Bool [n]: inspections whose score is comparable with the leave-one-out scores of the bank."""
        return self.judged_ok & self.scored_alike


class RecentInspections:
    """The recent inspections of every ROI on this host. Thread-safe. Its methods block: `add` for about 0.1 ms."""

    def __init__(self, folder: Path, window: int) -> None:
        """Set up; no file is opened before the first use.

        Args:
            folder: folder of the database. It is created when the first inspection is added.
            window: number of inspections to keep per ROI.
        """
        self._database = _Database(folder)
        self._window = window
        self.failure: str | None = None
        """Why the last inspection was not recorded, or None."""

    def add(
        self,
        key: RoiKey,
        manifest: Manifest,
        *,
        score: float,
        threshold: float | None,
        verdict: Verdict,
        look: Look,
        scored_alike: bool = True,
    ) -> None:
        """Add an inspection. A failure is logged and raises nothing, because statistics must not stop a line."""
        values = {
            **asdict(key),
            "bank": _bank(manifest),
            "time": time.time(),
            "score": score,
            "threshold": threshold,
            "brightness": look.brightness,
            "sharpness": look.sharpness,
            "verdict": verdict,
            "comparable": scored_alike,
            "window": self._window,
        }

        def write(connection: sqlite3.Connection) -> None:
            connection.execute("BEGIN IMMEDIATE")
            try:
                connection.execute(_ADD, values)
                connection.execute(_TRIM, values)
            except BaseException:
                connection.execute("ROLLBACK")
                raise
            connection.execute("COMMIT")

        try:
            self._database.write(write)
        except (OSError, sqlite3.Error) as error:
            if self.failure is None:
                log.warning("%s: inspections are not recorded for drift: %s: %s", key, self._database.path, error)
            self.failure = str(error)
        else:
            self.failure = None

    def of(self, key: RoiKey, manifest: Manifest) -> Recent:
        """Return the recent inspections of an ROI with one version. Empty if there are none or they are unreadable."""

        def read(connection: sqlite3.Connection) -> list[tuple[object, ...]]:
            return connection.execute(
                _READ, {**asdict(key), "bank": _bank(manifest), "window": self._window}
            ).fetchall()

        try:
            rows = self._database.read(read)
        except (OSError, sqlite3.Error) as error:
            log.warning("%s: recent inspections are not readable: %s: %s", key, self._database.path, error)
            rows = None
        columns = list(zip(*reversed(rows), strict=True)) if rows else [()] * 7
        times, scores, thresholds, brightness, sharpness, verdicts, comparable = columns
        return Recent(
            time=np.array(times, np.float64),
            score=np.array(scores, np.float64),
            threshold=np.array([math.nan if t is None else t for t in thresholds], np.float64),
            brightness=np.array(brightness, np.float64),
            sharpness=np.array(sharpness, np.float64),
            verdict=np.array(verdicts, np.str_),
            scored_alike=np.array(comparable, np.bool_),
        )

    def last_number(self, key: RoiKey) -> int:
        """Return the number of the newest inspection of an ROI. It grows by one per inspection. 0 without any."""

        def read(connection: sqlite3.Connection) -> int:
            (number,) = connection.execute(_LAST, asdict(key)).fetchone()
            return int(number)

        try:
            return self._database.read(read) or 0
        except (OSError, sqlite3.Error) as error:
            log.warning("%s: recent inspections are not readable: %s: %s", key, self._database.path, error)
            return 0

    def forget(self, key: RoiKey) -> None:
        """Delete the inspections of a deleted ROI."""
        try:
            self._database.write(lambda connection: connection.execute(_FORGET, asdict(key)))
        except (OSError, sqlite3.Error) as error:
            log.warning("%s: its recent inspections cannot be deleted: %s: %s", key, self._database.path, error)

    def close(self) -> None:
        """Close the database. It is opened again on the next use."""
        self._database.close()


def _bank(manifest: Manifest) -> str:
    """Return what scores depend on: the checksums of the bank and of its spatial weights."""
    return f"{manifest.checksum} {manifest.weights_checksum}"


class _Database:
    """One connection for writing and one for reading, opened on first use.

    A connection is opened again when the file was replaced, and the file is replaced when SQLite finds it damaged.
    """

    def __init__(self, folder: Path) -> None:
        self.path = folder / "inspections.sqlite3"
        self._writing = _Connection(self.path)
        self._reading = _Connection(self.path)

    def write(self, work: Callable[[sqlite3.Connection], object]) -> None:
        self._run(self._writing, work)

    def read(self, work: Callable[[sqlite3.Connection], _T]) -> _T | None:
        """Return what `work` returns, or None if there is no database."""
        return self._run(self._reading, work) if self.path.exists() else None

    def close(self) -> None:
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
                log.warning("%s is damaged (%s): the drift windows start empty", self.path, error)
                for suffix in ("", "-wal", "-shm"):
                    self.path.with_name(self.path.name + suffix).unlink(missing_ok=True)


class _Connection:
    """A connection to the database file, shared by the threads of a process."""

    def __init__(self, path: Path) -> None:
        self._path = path
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
                connection.execute("PRAGMA journal_mode=WAL")
                connection.execute("PRAGMA synchronous=OFF")
                (version,) = connection.execute("PRAGMA user_version").fetchone()
                if version != _SCHEMA_VERSION:
                    make = _UPGRADE if version == 1 else ("DROP TABLE IF EXISTS inspection;", _SCHEMA)
                    done = f"PRAGMA user_version={_SCHEMA_VERSION};"
                    connection.executescript(" ".join(("BEGIN;", *make, done, "COMMIT;")))
            except BaseException:
                connection.close()
                raise
            self._open = connection
            if is_new:
                _remove_ring_files(self._path.parent)


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


def _remove_ring_files(folder: Path) -> None:
    """Remove the files that earlier releases kept, one per ROI: ``<role_id>/<roi_id>.ring``."""
    rings = sorted(folder.glob("*/*.ring"))
    for ring in rings:
        with suppress(OSError):
            ring.unlink()
            ring.parent.rmdir()
    if rings:
        log.warning(
            "%s: removed %d drift files of an earlier release; the drift windows of these ROIs start empty",
            folder,
            len(rings),
        )
