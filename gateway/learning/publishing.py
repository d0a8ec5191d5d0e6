"""Publish what a fit has built: the version, its calibration, and the entry of the audit trail."""

import logging

from gateway.calibration.calibrate import redone, state_of
from gateway.calibration.stored_evidence import StoredEvidence
from gateway.detectors.memory_bank.detector import bank_files
from gateway.errors import GatewayError
from gateway.learning.build import Learned
from gateway.learning.request import CalibrationState
from gateway.learning.stored_scores import with_stored_scores
from gateway.monitoring.timing import StageTimes
from gateway.settings import Settings
from gateway.store.artifact_store import ArtifactStore
from gateway.store.audit import Action, Change
from gateway.store.manifest import Calibration, Manifest
from gateway.store.roi_key import RoiKey

log = logging.getLogger(__name__)


class FitPublisher:
    """All methods block. The caller holds the lock of the ROI."""

    def __init__(self, store: ArtifactStore, settings: Settings) -> None:
        self._store = store
        self._settings = settings

    def publish(
        self,
        key: RoiKey,
        manifest: Manifest,
        learned: Learned,
        evidence: StoredEvidence,
        action: Action,
        before: Manifest | None,
        calibration: Calibration | None,
        times: StageTimes,
    ) -> tuple[CalibrationState, Manifest]:
        """Publish a version with its calibration: the one before or, where it can be redone, a new one.

        Raises:
            GatewayError: nothing was published.
        """
        # Computed before the version is published, so that one move of `current` brings bank and threshold.
        settings = self._settings
        after = None if calibration is None else redone(manifest, learned.ok_maps, settings, calibration, evidence)
        kept = after or calibration
        manifest = with_stored_scores(manifest, evidence, after, settings)
        change = Change(
            action=action,
            version_before=None if before is None else before.version,
            version_after=manifest.version,
            threshold_before=None if calibration is None else calibration.threshold,
            threshold_after=None if kept is None else kept.threshold,
            n_ok_before=0 if before is None else len(before.images),
            n_ok_after=len(manifest.images),
        )
        with times.stage("store"), self._store.audit.change(key, change):
            content = bank_files(learned.bank, manifest)
            _, manifest = self._store.publish(key, manifest, content, learned.weights, learned.ok_maps, kept)
        self._drop_unnamed_images(key)
        return "redone" if after is not None else state_of(manifest, calibration), manifest

    def calibration(self, key: RoiKey, manifest: Manifest, warnings: list[str]) -> Calibration | None:
        """Return the calibration of the version before.

        Raises:
            ArtifactCorruptError: it cannot be read. The next version would be uncalibrated where this one is not.
        """
        stored = self._store.calibration(key, manifest)
        if stored.damaged:
            warnings.append(f"damaged: {stored.damaged}; its copy was used")
        return stored.calibration

    def _drop_unnamed_images(self, key: RoiKey) -> None:
        """Delete images that no version names. The version is published: a failure here is only logged."""
        try:
            self._store.drop_unnamed_images(key)
        except (OSError, GatewayError) as error:
            log.warning("%s: OK images that no version names could not be deleted: %s", key, error)
