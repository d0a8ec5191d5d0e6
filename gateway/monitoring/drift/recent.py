"""Recent inspections of each ROI, in a SQLite database of this host.

The database outlives restarts, and all worker processes of a host share it. An inspection belongs to a version of the
memory bank, so a fit starts an empty window.
"""

import logging
import math
import sqlite3
import time
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from gateway.images.appearance import Look
from gateway.monitoring.database import Database, Schema
from gateway.store.manifest import Manifest
from gateway.store.roi_key import RoiKey
from postprocess.verdict import Verdict

log = logging.getLogger(__name__)

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
_OF_DRIFT = Schema(_SCHEMA_VERSION, ("DROP TABLE IF EXISTS inspection;", _SCHEMA), ((1, _UPGRADE),))


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
        self._database = Database(
            folder / "inspections.sqlite3", _OF_DRIFT, "the drift windows start empty", _remove_ring_files
        )
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
