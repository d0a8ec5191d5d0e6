"""What this process found damaged on disk: told once in the log and the metrics, and known until it is mended."""

import logging
from collections.abc import Callable, Mapping
from threading import Lock
from typing import Literal

from gateway.store.roi_key import RoiKey

log = logging.getLogger(__name__)

FaultKind = Literal["pointer", "version", "calibration", "ok_image", "ok_tokens", "audit"]
"""What is damaged: `current`, a version's files, its calibration, an OK image, its tokens; or the audit trail's end."""

ServingKind = Literal["pointer", "version", "calibration"]
"""Those of which something else answers in the place of what is damaged."""


class ArtifactFaults:
    """Damage met by this process. May be asked and told from any thread."""

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
        """Note what was found damaged while an ROI was served; what is no longer among it is mended."""
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
            self._count(kind)
            log.error("%s is degraded, %s: %s", key, kind, what)
        if known and not found:
            log.info("%s is whole again", key)

    def met(self, key: RoiKey, kind: FaultKind, what: str) -> None:
        """Note damage that is made up for at once, or that ends in an error answer."""
        self._count(kind)
        log.error("%s: %s", key, what)

    def forget(self, key: RoiKey) -> None:
        """The ROI is gone."""
        with self._lock:
            self._open.pop(key, None)
            self._gauge(len(self._open))

    def degraded(self) -> dict[RoiKey, dict[ServingKind, str]]:
        """ROIs in whose place something older answers, or nothing, and why."""
        with self._lock:
            return {key: dict(found) for key, found in sorted(self._open.items())}
