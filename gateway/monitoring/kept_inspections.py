"""Images that were inspected lately, with their verdicts: kept for review where the settings ask for it.

They are in a SQLite database of this host, bounded by bytes and by days. A picture of an ROI that is inspected again
replaces its earlier inspection. A thread of its own writes, so that inspections do not wait; when it cannot keep up,
images are left out.
"""

import logging
import queue
import sqlite3
import threading
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal, TypeVar

from gateway.monitoring.database import Database, Schema
from gateway.store.roi_key import RoiKey
from postprocess.verdict import Verdict, VerdictReason

log = logging.getLogger(__name__)

_T = TypeVar("_T")

Order = Literal["borderline", "newest"]
_DAY_S = 24 * 3600
_WAITING = 32
"""Images that wait for the thread that writes."""
_CLOSE_S = 10.0
_SCHEMA = Schema(
    version=1,
    make=(
        "DROP TABLE IF EXISTS inspection;",
        "DROP TABLE IF EXISTS picture;",
        """CREATE TABLE inspection (
            id INTEGER PRIMARY KEY AUTOINCREMENT,
            recipe_id TEXT NOT NULL, role_id TEXT NOT NULL, roi_id TEXT NOT NULL,
            image_id TEXT NOT NULL, file_name TEXT NOT NULL, time REAL NOT NULL, n_bytes INTEGER NOT NULL,
            width INTEGER NOT NULL, height INTEGER NOT NULL, bit_depth INTEGER,
            verdict TEXT NOT NULL, verdict_reason TEXT, score REAL NOT NULL, threshold REAL, peak REAL,
            peak_threshold REAL, review_threshold REAL, version INTEGER NOT NULL,
            UNIQUE (recipe_id, role_id, roi_id, image_id)
        );""",
        "CREATE INDEX by_age ON inspection (id, n_bytes);",
        # Apart, so that a list does not read the pictures.
        "CREATE TABLE picture (id INTEGER PRIMARY KEY, content BLOB NOT NULL);",
    ),
    pragmas=("PRAGMA auto_vacuum=INCREMENTAL",),
)
_COLUMNS = (
    "image_id, file_name, time, n_bytes, width, height, bit_depth, verdict, verdict_reason, score, threshold, peak, "
    "peak_threshold, review_threshold, version"
)
_VALUES = ", ".join(f":{name}" for name in _COLUMNS.split(", "))
_ADD = (
    f"INSERT INTO inspection (recipe_id, role_id, roi_id, {_COLUMNS}) SELECT :recipe_id, :role_id, :roi_id, {_VALUES}"
)
_OF_ROI = "FROM inspection WHERE recipe_id = :recipe_id AND role_id = :role_id AND roi_id = :roi_id"
_SHOWN = f"{_OF_ROI} AND time >= :oldest AND (:verdict IS NULL OR verdict = :verdict)"
_ORDERS: dict[Order, str] = {
    # A missing value is null, and null comes first: images without a threshold or a peak come last.
    "borderline": "ORDER BY abs(peak - peak_threshold) IS NULL, abs(peak - peak_threshold), id DESC",
    "newest": "ORDER BY id DESC",
}
_SAME = f"SELECT id {_OF_ROI} AND image_id = :image_id"
_OLD = """
SELECT id FROM inspection WHERE time < :oldest
UNION SELECT id FROM (SELECT id, sum(n_bytes) OVER (ORDER BY id DESC) AS kept FROM inspection) WHERE kept > :max_bytes
"""


@dataclass(frozen=True, slots=True)
class KeptInspection:
    """The verdict on an image that is kept."""

    image_id: str
    """Identity of the picture, as that of a stored image."""
    file_name: str
    time: float
    """Seconds since 1970."""
    n_bytes: int
    width: int
    height: int
    bit_depth: int | None
    verdict: Verdict
    verdict_reason: VerdictReason | None
    score: float
    threshold: float | None
    peak: float | None
    peak_threshold: float | None
    review_threshold: float | None
    version: int


class KeptInspections:
    """The kept inspections of every ROI on this host. Thread-safe. `add` does not block; the other methods do."""

    def __init__(self, folder: Path, *, keeps: bool, max_bytes: int, days: int) -> None:
        """Set up; no file is opened before the first use.

        Args:
            folder: folder of the database.
            keeps: whether inspections are kept; if not, there are none.
            max_bytes: limit of the images of all ROIs together. An image that is larger is not kept.
            days: an inspection is kept for this long.
        """
        self.keeps = keeps
        self._database = Database(folder / "kept.sqlite3", _SCHEMA, "the kept inspections are lost")
        self._max_bytes = max_bytes
        self._days = days
        self._waiting: queue.Queue[tuple[RoiKey, KeptInspection, bytes] | None] = queue.Queue(_WAITING)
        self._lock = threading.Lock()
        self._writer: threading.Thread | None = None

    def add(self, key: RoiKey, inspection: KeptInspection, image: bytes) -> None:
        """Keep an inspection, soon. It is left out where too many wait."""
        if not self.keeps or len(image) > self._max_bytes:
            return
        with self._lock:
            if self._writer is None:
                self._writer = threading.Thread(target=self._write_all, name="kept inspections", daemon=True)
                self._writer.start()
        try:
            self._waiting.put_nowait((key, inspection, image))
        except queue.Full:
            log.warning("%s: an inspection is not kept: %d others wait to be written", key, _WAITING)

    def of(
        self, key: RoiKey, order: Order, verdict: Verdict | None, offset: int, limit: int
    ) -> tuple[int, list[tuple[int, KeptInspection]]]:
        """Return the number of kept inspections of an ROI with a verdict, and some of them with their numbers.

        Args:
            key: the ROI.
            order: ``borderline`` begins with the peaks nearest to their threshold.
            verdict: None for all.
            offset: number of inspections to skip.
            limit: largest number to return.
        """
        values = {**asdict(key), "oldest": self._oldest(), "verdict": verdict, "offset": offset, "limit": limit}

        def read(connection: sqlite3.Connection) -> tuple[int, list[tuple[int, KeptInspection]]]:
            (total,) = connection.execute(f"SELECT count(*) {_SHOWN}", values).fetchone()
            found = connection.execute(
                f"SELECT id, {_COLUMNS} {_SHOWN} {_ORDERS[order]} LIMIT :limit OFFSET :offset", values
            )
            return int(total), [(row[0], KeptInspection(*row[1:])) for row in found]

        return self._read(read) or (0, [])

    def one(self, key: RoiKey, number: int) -> tuple[KeptInspection, bytes] | None:
        """Return a kept inspection with its image as sent, or None if it is not kept (any more)."""
        values = {**asdict(key), "id": number, "oldest": self._oldest(), "verdict": None}

        def read(connection: sqlite3.Connection) -> tuple[KeptInspection, bytes] | None:
            row = connection.execute(f"SELECT {_COLUMNS} {_SHOWN} AND id = :id", values).fetchone()
            image = connection.execute("SELECT content FROM picture WHERE id = :id", values).fetchone()
            return None if row is None or image is None else (KeptInspection(*row), image[0])

        return self._read(read)

    def forget(self, key: RoiKey) -> None:
        """Delete the inspections of a deleted ROI."""

        def write(connection: sqlite3.Connection) -> None:
            _delete(connection, [row[0] for row in connection.execute(f"SELECT id {_OF_ROI}", asdict(key))])

        if self.keeps:
            self._write(write)

    def close(self) -> None:
        """Write what waits, and close the database."""
        if self._writer is not None:
            self._waiting.put(None)
            self._writer.join(_CLOSE_S)
            self._writer = None
        self._database.close()

    def _write_all(self) -> None:
        while (item := self._waiting.get()) is not None:
            key, inspection, image = item
            values = {**asdict(key), **asdict(inspection)}

            def write(connection: sqlite3.Connection, values: dict[str, object] = values, image: bytes = image) -> None:
                _delete(connection, [row[0] for row in connection.execute(_SAME, values)])
                number = connection.execute(_ADD, values).lastrowid
                connection.execute("INSERT INTO picture VALUES (?, ?)", (number, image))
                limits = {"oldest": self._oldest(), "max_bytes": self._max_bytes}
                if _delete(connection, [row[0] for row in connection.execute(_OLD, limits)]):
                    connection.execute("PRAGMA incremental_vacuum").fetchall()

            self._write(write)

    def _write(self, work: Callable[[sqlite3.Connection], None]) -> None:
        def whole(connection: sqlite3.Connection) -> None:
            connection.execute("BEGIN IMMEDIATE")
            try:
                work(connection)
            except BaseException:
                connection.execute("ROLLBACK")
                raise
            connection.execute("COMMIT")

        try:
            self._database.write(whole)
        except (OSError, sqlite3.Error) as error:
            log.warning("inspections are not kept: %s: %s", self._database.path, error)

    def _read(self, work: Callable[[sqlite3.Connection], _T]) -> _T | None:
        if not self.keeps:
            return None
        try:
            return self._database.read(work)
        except (OSError, sqlite3.Error) as error:
            log.warning("kept inspections are not readable: %s: %s", self._database.path, error)
            return None

    def _oldest(self) -> float:
        return time.time() - self._days * _DAY_S


def _delete(connection: sqlite3.Connection, numbers: list[int]) -> int:
    connection.executemany("DELETE FROM inspection WHERE id = ?", [(number,) for number in numbers])
    connection.executemany("DELETE FROM picture WHERE id = ?", [(number,) for number in numbers])
    return len(numbers)
