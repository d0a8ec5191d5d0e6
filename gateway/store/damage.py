"""Damage that this process found on disk. It is reported once, in log and metrics, and remembered until repaired."""

import logging
from collections.abc import Callable, Mapping
from threading import Lock
from typing import Literal

from gateway.store.roi_key import RoiKey

log = logging.getLogger(__name__)

FaultKind = Literal["pointer", "version", "calibration", "ok_image", "ok_tokens", "stored_image", "audit"]
"""What is damaged: `current`, files of a version, its calibration, an OK image, tokens, a stored image, or the audit
trail."""

ServingKind = Literal["pointer", "version", "calibration", "storage"]
"""Kinds of damage for which a copy or an older version answers, and a store that does not answer."""


class ArtifactFaults:
    """Damage found by this process. All methods are thread-safe."""

    def __init__(
        self, count: Callable[[FaultKind], None] | None = None, gauge: Callable[[int], None] | None = None
    ) -> None:
        """Start without faults.

        Args:
            count: is called once for each fault met, with its kind.
            gauge: is called with the number of degraded ROIs when it may have changed.
        """
        self._count = count or (lambda _: None)
        self._gauge = gauge or (lambda _: None)
        self._lock = Lock()
        self._open: dict[RoiKey, dict[ServingKind, str]] = {}

    def serving(self, key: RoiKey, found: Mapping[ServingKind, str]) -> None:
        """Record the damage found while an ROI was served. Damage that is no longer in `found` counts as repaired."""
        if not found and key not in self._open:
            return
        with self._lock:
            known = self._open.get(key, {})
            new = {kind: what for kind, what in found.items() if known.get(kind) != what}
            self._open[key] = dict(found)
            if not found:
                del self._open[key]
            self._gauge(len(self._open))
        for kind, what in new.items():
            if kind == "storage":  # nothing is damaged
                log.warning("%s is degraded: %s", key, what)
            else:
                self._count(kind)
                log.error("%s is degraded, %s: %s", key, kind, what)
        if known and not found:
            log.info("%s is whole again", key)

    def met(self, key: RoiKey, kind: FaultKind, what: str) -> None:
        """Record damage that is repaired at once, or that ends in an error answer."""
        self._count(kind)
        log.error("%s: %s", key, what)

    def forget(self, key: RoiKey) -> None:
        """Forget an ROI that was deleted."""
        with self._lock:
            self._open.pop(key, None)
            self._gauge(len(self._open))

    def degraded(self) -> dict[RoiKey, dict[ServingKind, str]]:
        """Return the ROIs for which an older version or a copy answers, or nothing, and why."""
        with self._lock:
            return {key: dict(found) for key, found in sorted(self._open.items())}
