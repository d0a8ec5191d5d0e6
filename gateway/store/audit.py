"""The audit trail: who changed what in an ROI, one append-only file of JSON lines for each ROI.

In a folder the file is ``models/.audit/<role_id>/<roi_id>.jsonl``, at the path of `RoiKey.path`. No id starts with a
dot, so no ROI can have this folder. In a bucket each line is an object. Both are outside the folder of the ROI, so that
they survive a deletion. A change is recorded before it is made, and its outcome before the client is answered. If the
first line cannot be written, nothing is changed. A change without an outcome was interrupted; the version in use shows
whether it was made.
"""

import json
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from typing import Any, Literal

from structlog.contextvars import get_contextvars

from gateway.errors import GatewayError
from gateway.store.atomic import storage_errors
from gateway.store.damage import ArtifactFaults
from gateway.store.place import Storage
from gateway.store.roi_key import DEFAULT_RECIPE, RoiKey

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
    """The audit trails of all ROIs. Every method blocks."""

    def __init__(self, storage: Storage, faults: ArtifactFaults) -> None:
        self._storage = storage
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
        changes: dict[str, dict[str, Any]] = {}
        for line in self._storage.audit(key, 2 * limit):  # a change has two
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
        except (OSError, GatewayError) as why:
            self._faults.met(key, "audit", f"the end of change {of} ({outcome}) cannot be recorded: {why}")

    def _append(self, key: RoiKey, entry: dict[str, Any]) -> None:
        self._storage.append_audit(key, json.dumps(entry, ensure_ascii=False).encode())


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="milliseconds")
