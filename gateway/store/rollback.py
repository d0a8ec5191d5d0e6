"""Rollback and deletion of an ROI."""

from contextlib import suppress
from dataclasses import dataclass

from gateway.errors import ArtifactCorruptError, UnknownRoiError
from gateway.settings import Settings
from gateway.store.artifact_store import ArtifactStore
from gateway.store.audit import Change
from gateway.store.manifest import Calibration, Manifest
from gateway.store.roi_key import RoiKey


@dataclass(frozen=True, slots=True)
class RolledBack:
    """The result of a rollback."""

    before: int
    manifest: Manifest
    calibration: Calibration | None
    warnings: list[str]


def roll_back(store: ArtifactStore, settings: Settings, key: RoiKey, version: int) -> RolledBack:
    """Make a kept version the version in use, with the calibration that it had. Blocks: call it from a worker thread.

    The next fit builds on it and gets a new number. Later versions stay while they are among the newest kept ones, so
    that a rollback can be reverted in the same way.

    Raises:
        UnknownRoiError: the ROI was never fitted.
        UnknownVersionError: the version is not kept or is damaged.
        OverloadedError: another change of the ROI is running.
        StorageFullError: nothing was changed.
    """
    store.current(key)
    with store.lock(key, settings.fit_lock_timeout_s):
        now = store.current(key)
        ref = store.whole_version(key, version)
        manifest = store.manifest(key, ref)
        if now != ref or now.damaged:
            change = _change(store, key, now.number, manifest)
            with store.audit.change(key, change):
                store.roll_back(key, ref)
        warnings = [] if now.damaged is None else [f"damaged: {now.damaged}; repaired"]
        calibration = None
        try:
            stored = store.calibration(key, manifest)
        except ArtifactCorruptError as error:
            warnings.append(f"{error.message}: inspections are refused until this ROI is calibrated again")
        else:
            calibration = stored.calibration
            if stored.damaged:
                warnings.append(f"damaged: {stored.damaged}; its copy answers")
            if calibration is not None and calibration.is_stale(manifest):
                warnings.append(f"the threshold was calibrated for version {calibration.version}: calibrate again")
    return RolledBack(now.number, manifest, calibration, warnings)


def forget(store: ArtifactStore, key: RoiKey) -> None:
    """Delete an ROI with its stored images and everything that it learned. Its audit trail stays.

    The caller holds both locks.

    Raises:
        UnknownRoiError: the ROI was never fitted and has no stored images.
        StorageFullError: nothing was changed.
    """
    if not store.exists(key):
        raise UnknownRoiError(f"{key} was never fitted")
    version, threshold, n_ok = None, None, 0
    with suppress(ArtifactCorruptError, UnknownRoiError):  # a damaged or unfitted ROI can be deleted too
        manifest, _ = store.served_manifest(key)
        version, n_ok = manifest.version, len(manifest.images)
        threshold = store.threshold(key, manifest)
    change = Change(
        action="delete",
        version_before=version,
        version_after=None,
        threshold_before=threshold,
        threshold_after=None,
        n_ok_before=n_ok,
        n_ok_after=0,
    )
    with store.audit.change(key, change):
        store.delete(key)


def _change(store: ArtifactStore, key: RoiKey, before: int, manifest: Manifest) -> Change:
    left = next((m for m in store.manifests(key) if m.version == before), None)
    return Change(
        action="rollback",
        version_before=before,
        version_after=manifest.version,
        threshold_before=None if left is None else store.threshold(key, left),
        threshold_after=store.threshold(key, manifest),
        n_ok_before=0 if left is None else len(left.images),
        n_ok_after=len(manifest.images),
    )
