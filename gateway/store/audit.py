"""The audit trail: who changed what in an ROI, one append-only file of JSON lines for each ROI.

The file is ``models/.audit/<role_id>/<roi_id>.jsonl``, at the path of `RoiKey.path`. It is outside the folder of the
ROI, so that it survives a deletion. No id starts with a dot, so no ROI can have this folder. A change is recorded
before it is made, and its outcome before the client is answered. If the first line cannot be written, nothing is
changed. A change without an outcome was interrupted; the version in use shows whether it was made.
"""

import fcntl
import json
import os
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path, PurePath
from typing import Any, Literal

from structlog.contextvars import get_contextvars

from gateway.errors import GatewayError
from gateway.store.atomic import storage_errors, sync_folder
from gateway.store.damage import ArtifactFaults
from gateway.store.roi_key import DEFAULT_RECIPE, RoiKey, file_of

AUDIT = PurePath(".audit")

Action = Literal[
    "fit",
    "calibrate",
    "rollback",
    "delete",
    "delete_ok_image",
    "import",
    "publish",
    "store_images",
    "label_image",
    "delete_images",
]


@dataclass(frozen=True, slots=True)
class Change:
    """A change of an ROI. None stands for a value that does not exist before or after it."""

    action: Action
    version_before: int | None
    version_after: int | None
    threshold_before: float | None = None
    threshold_after: float | None = None
    n_ok_before: int = 0
    n_ok_after: int = 0
    n_images: int | None = None
    """Stored images that the change concerns, for actions on stored images."""
    label: str | None = None
    """Their label after the change; None where they are deleted."""
    image: str | None = None
    """Id of the image, where it is one."""


class AuditTrail:
    """The audit trails of all ROIs in a models folder. Every method blocks."""

    def __init__(self, root: Path, faults: ArtifactFaults) -> None:
        self._root = root
        self._faults = faults

    @contextmanager
    def change(self, key: RoiKey, change: Change) -> Iterator[None]:
        """Record a change around the code that makes it. The caller holds the lock of the ROI or that of its images.

        Raises:
            StorageFullError: the change cannot be recorded, so nothing was changed.
        """
        asked = get_contextvars()
        begun = {
            "id": uuid.uuid4().hex,
            "time": _now(),
            **asdict(key),
            "action": change.action,
            "actor": asked.get("actor", "anonymous"),
            "client": asked.get("client", ""),
            "request_id": asked.get("request_id", ""),
            **{name: value for name, value in asdict(change).items() if name != "action"},
        }
        with storage_errors():
            self._append(key, begun)
        try:
            yield
        except BaseException as error:
            self._end(key, begun["id"], "failed", error.code if isinstance(error, GatewayError) else "internal")
            raise
        self._end(key, begun["id"], "done")

    def read(self, key: RoiKey, limit: int) -> list[dict[str, Any]]:
        """Return the last changes, newest first. `outcome` is done, failed, or unknown for an interrupted change."""
        try:
            lines = self._path(key).read_bytes().splitlines()
        except (FileNotFoundError, NotADirectoryError):
            return []
        changes: dict[str, dict[str, Any]] = {}
        for line in lines:
            try:
                entry = json.loads(line)
                named = entry["id"]
                if "outcome" in entry:
                    changes[named] |= {"outcome": entry["outcome"], "error": entry.get("error")}
                elif RoiKey(entry["role_id"], entry["roi_id"], entry.get("recipe_id", DEFAULT_RECIPE)) == key:
                    changes[named] = {**entry, **asdict(key), "outcome": "unknown", "error": None}
            except (ValueError, KeyError, TypeError, GatewayError):
                continue  # cut by a kill, or the line of another ROI on a file system that ignores case
        return list(changes.values())[::-1][:limit]

    def _end(self, key: RoiKey, of: str, outcome: str, error: str | None = None) -> None:
        """Record the outcome. If that fails, the change stays as it is and the failure is logged and counted."""
        end = {"id": of, "time": _now(), "outcome": outcome, **({} if error is None else {"error": error})}
        try:
            self._append(key, end)
        except OSError as why:
            self._faults.met(key, "audit", f"the end of change {of} ({outcome}) cannot be recorded: {why}")

    def _append(self, key: RoiKey, entry: dict[str, Any]) -> None:
        path = self._path(key)
        path.parent.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o644)
        try:
            # A fit and a change of the stored images hold different locks.
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            size = os.fstat(descriptor).st_size
            torn = size > 0 and os.pread(descriptor, 1, size - 1) != b"\n"
            line = json.dumps(entry, ensure_ascii=False).encode() + b"\n"
            try:
                _write_all(descriptor, b"\n" + line if torn else line)
                os.fsync(descriptor)
            except OSError:
                with suppress(OSError):
                    os.ftruncate(descriptor, size)
                raise
        finally:
            os.close(descriptor)
        if not size:
            for folder in (AUDIT / key.path).parents:
                sync_folder(self._root / folder)

    def _path(self, key: RoiKey) -> Path:
        return file_of(self._root / AUDIT, key, "jsonl")


def _write_all(descriptor: int, data: bytes) -> None:
    while data:
        data = data[os.write(descriptor, data) :]


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="milliseconds")
