"""Artifacts on disk: versions, checksums, locks.

``models/<role_id>/<roi_id>/``, or for other recipes ``models/.recipes/<recipe_id>/<role_id>/<roi_id>/``, holds

- ``ok/``: the learned OK images as sent, and their tokens;
- ``images/``: images that clients stored with a label, learned or not;
- ``versions/<n>/``: the memory bank and its index, or a trained network; the leave-one-out maps; the spatial weights
  if the ROI has any; a manifest with the checksums of these files; and the calibration of the version;
- ``current``: the number of the version in use, and the checksums of the manifests of all kept versions;
- ``calib.json``: a mirror of the active calibration, for people and for when the version's own file is damaged.

A writer holds the lock of the ROI, which works across processes and hosts. It writes a version aside and then moves
``current``, so that memory bank and threshold change together. A reader needs no lock. Every file is checked against
its checksum when it is read, and a file that fails is not used.
"""

import logging
import shutil
import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from gateway.errors import ArtifactCorruptError, NewerFormatError, UnknownRoiError
from gateway.store.atomic import replace_file, storage_errors, sync_folder, write_file
from gateway.store.audit import AuditTrail
from gateway.store.calibration_file import mirror_calibration
from gateway.store.checksummed import DamagedError, sha256_of, unsealed
from gateway.store.damage import ArtifactFaults
from gateway.store.lock import held, is_held
from gateway.store.manifest import CALIBRATION, CURRENT, MANIFEST, Calibration, FileName, Manifest, Pointer, VersionRef
from gateway.store.new_rois import require_new_name
from gateway.store.ok_maps import OkMaps
from gateway.store.reader import ArtifactReader, never_fitted
from gateway.store.roi_key import RoiKey, file_of
from gateway.store.together import complete_interrupted
from gateway.store.version_folder import read_manifest, version_files

log = logging.getLogger(__name__)

_LOCKS = ".locks"
_IMAGE_LOCK_S = 5.0
TRASH = ".trash"


class ArtifactStore(ArtifactReader):
    """The models folder with all ROIs. Every method blocks: call it from a worker thread."""

    def __init__(self, root: Path, *, keep_versions: int, faults: ArtifactFaults | None = None) -> None:
        """Read and write nothing yet.

        Args:
            root: the models folder.
            keep_versions: number of versions of an ROI that are kept.
            faults: is told of damage.
        """
        super().__init__(root, faults)
        self.audit = AuditTrail(root, self.faults)
        self._keep = keep_versions

    @contextmanager
    def lock(self, key: RoiKey, timeout_s: float, *, creates: bool = False) -> Iterator[None]:
        """Hold the lock of an ROI, which excludes all other writers of all processes.

        Args:
            key: the ROI.
            timeout_s: longest time to wait for the lock.
            creates: make the folder of the ROI if it does not exist. Its name is checked first.

        Raises:
            InvalidRequestError: see `check_name`.
            OverloadedError: another writer held the lock for `timeout_s`.
            StorageFullError: the models folder cannot be written.
            NewerFormatError: a newer gateway wrote a file of this ROI, so this gateway must not change it.
        """
        if creates:
            self.check_name(key)  # so that not even the file of the lock gets a wrong name
        with held(self._lock_file(key), str(key), timeout_s):
            self._refuse_newer(key)
            if creates:
                self._claim(key, timeout_s)
            yield

    @contextmanager
    def image_lock(self, key: RoiKey, timeout_s: float, *, creates: bool = False) -> Iterator[None]:
        """Hold the lock of the stored images of an ROI. It is held for moments, also while a fit holds `lock`.

        A caller that needs both locks takes `lock` first. What a killed process left of a request is completed first.

        Args:
            key: the ROI.
            timeout_s: longest time to wait for the lock.
            creates: make the folder of the ROI if it does not exist. Its name is checked first.

        Raises:
            InvalidRequestError: see `check_name`.
            OverloadedError: another writer held the lock for `timeout_s`.
            StorageFullError: the models folder cannot be written.
        """
        if creates:
            self.check_name(key)
        with held(self._image_lock_file(key), f"the stored images of {key}", timeout_s):
            if creates:
                self._claim(key, timeout_s)
            with storage_errors():
                complete_interrupted(self.images(key).folder)
            yield

    def check_name(self, key: RoiKey) -> None:
        """Check that an ROI exists, or that a new ROI may have its name.

        Raises:
            InvalidRequestError: Windows reserves an id, or an id differs only in case from that of an ROI that exists
                or is being made.
        """
        stored = self.folders()
        if not (key in stored and self.exists(key)):
            require_new_name(key, [other for other in stored if other != key], self._is_in_use)

    def _claim(self, key: RoiKey, timeout_s: float) -> None:
        """Make the folder of an ROI. The caller holds a lock of the ROI.

        Of two new ROIs at the same time whose names differ only in case, the second one sees the folder of the first.
        """
        with held(self.root / _LOCKS / ".names.lock", str(key), timeout_s), storage_errors():
            self.check_name(key)
            self.folder(key).mkdir(parents=True, exist_ok=True)

    def _is_in_use(self, key: RoiKey) -> bool:
        """Return whether an ROI exists or a writer is at work on it, so it is not left from an interrupted fit."""
        return self.exists(key) or is_held(self._lock_file(key)) or is_held(self._image_lock_file(key))

    def _lock_file(self, key: RoiKey) -> Path:
        return file_of(self.root / _LOCKS, key, "lock")

    def _image_lock_file(self, key: RoiKey) -> Path:
        # No folder name starts with a dot, so this is the lock of no other ROI.
        path = self._lock_file(key)
        return path.with_name(f".{path.name}")

    def next_version(self, key: RoiKey) -> int:
        """Return the number of the next version. A number is never used twice."""
        try:
            last = self.current(key).last or 0
        except (UnknownRoiError, ArtifactCorruptError):
            last = 0
        return max(last, *self.numbers(key), 0) + 1

    def publish(
        self,
        key: RoiKey,
        manifest: Manifest,
        content: Mapping[FileName, bytes],
        weights: NDArray[np.float32] | None = None,
        ok_maps: OkMaps | None = None,
        calibration: Calibration | None = None,
    ) -> tuple[VersionRef, Manifest]:
        """Write a version aside, sync it to disk, and make it the version in use. The caller holds the lock.

        Args:
            key: the ROI.
            manifest: without its checksums.
            content: the files of the detector, from `Detector.files`.
            weights: float32 [h, w], the spatial weights of the ROI.
            ok_maps: the leave-one-out maps; None for a version with one image.
            calibration: the calibration of the version. If it was made for this version, it is bound to it.

        Raises:
            StorageFullError: nothing was changed.
        """
        manifest, files = version_files(manifest, content, weights, ok_maps)
        number = manifest.version
        if calibration is not None:
            if calibration.version == number:
                calibration = calibration.bound_to(manifest)
            files[CALIBRATION] = calibration.model_copy(update={"kept_with": number}).to_bytes()
        final = self.version_folder(key, number)
        aside = final.with_name(f".{number}.{uuid.uuid4().hex}.tmp")
        with storage_errors():
            self._keep_calibration(key)
            try:
                aside.mkdir(parents=True)
                for name, data in files.items():
                    write_file(aside / name, data)
                sync_folder(aside)
                aside.rename(final)
                sync_folder(final.parent)
                # A new role or ROI adds names to these folders. The folder of the ROI is synced with `current`.
                for folder in key.path.parents:
                    sync_folder(self.root / folder)
                ref = self._point_to(key, VersionRef(number, sha256_of(files[MANIFEST])))
            except OSError:
                shutil.rmtree(aside, ignore_errors=True)
                if not self._is_current(key, number):
                    self.remove_version(key, number)
                raise
        mirror_calibration(self.folder(key), self.version_folder(key, manifest.version), manifest)
        for old in self.numbers(key) - ref.manifests.keys():
            self.remove_version(key, old)
        return ref, manifest

    def roll_back(self, key: RoiKey, ref: VersionRef) -> VersionRef:
        """Make a kept version the version in use, together with its calibration. The caller holds the lock.

        Raises:
            StorageFullError: nothing was changed.
        """
        with storage_errors():
            self._keep_calibration(key)
            ref = self._point_to(key, ref)
        mirror_calibration(self.folder(key), self.version_folder(key, ref.number), self.manifest(key, ref))
        return ref

    def set_calibration(self, key: RoiKey, manifest: Manifest, calibration: Calibration) -> None:
        """Replace the calibration of a version. The caller holds the lock.

        Raises:
            StorageFullError: nothing was changed.
        """
        data = calibration.model_copy(update={"kept_with": manifest.version}).to_bytes()
        with storage_errors():
            replace_file(self.version_folder(key, manifest.version) / CALIBRATION, data)
        mirror_calibration(self.folder(key), self.version_folder(key, manifest.version), manifest)

    def drop_unnamed_images(self, key: RoiKey) -> int:
        """Remove OK images and tokens that no kept version references. The caller holds the lock.

        Traces of deleted stored images go with them; stored images stay. Nothing is removed while a manifest is
        unreadable.

        Returns:
            The number of removed files.
        """
        try:
            ref = self.current(key)
            manifests = self.manifests(key)
        except (UnknownRoiError, ArtifactCorruptError):
            return 0
        if ref.damaged or len(manifests) != len(self.kept(key, ref)):
            return 0  # unreadable manifests may reference them
        named = [image for m in manifests for image in (*m.images, *m.excluded)]
        pixels, files = {image.pixels_sha256 for image in named}, {image.sha256 for image in named}
        gone = self.ok(key).keep_only(files)
        images = self.images(key)
        if images.folder.is_dir():
            with self.image_lock(key, _IMAGE_LOCK_S):
                gone += images.forget_deleted(lambda record: record.id in pixels or record.file_sha256 in files)
        return gone

    def delete(self, key: RoiKey) -> None:
        """Remove an ROI with everything that it learned, in one step for all readers. The caller holds both locks.

        Raises:
            UnknownRoiError: the ROI was never fitted and has no stored images.
        """
        trash = self.root / TRASH
        with storage_errors():
            trash.mkdir(exist_ok=True)
            gone = trash / uuid.uuid4().hex
            try:
                self.folder(key).rename(gone)
            except FileNotFoundError as error:
                raise never_fitted(key) from error
            sync_folder(self.folder(key).parent)
        shutil.rmtree(gone, ignore_errors=True)
        self.faults.forget(key)

    def check_writable(self) -> None:
        """Check that the models folder can be written.

        Raises:
            StorageFullError: it cannot.
        """
        with storage_errors():
            self.root.mkdir(parents=True, exist_ok=True)
            probe = self.root / f".probe.{uuid.uuid4().hex}"
            write_file(probe, b"ok")
            probe.unlink(missing_ok=True)

    def _point_to(self, key: RoiKey, ref: VersionRef) -> VersionRef:
        """Move ``current``. It lists the newest versions, the new one, and the one before, which may still be read.

        If all of these are students, the newest memory bank is kept too, so that a rollback to it stays possible.
        """
        manifests: dict[int, str] = {}
        always = {ref.number}
        try:
            before = self.current(key)
        except (UnknownRoiError, ArtifactCorruptError):
            manifests = self._manifests_found(key)
        else:
            always.add(before.number)
            told = before.manifests or {before.number: before.manifest_sha256}
            manifests = {**({} if before.last is not None else self._manifests_found(key)), **told}
        manifests[ref.number] = ref.manifest_sha256
        newest = set(sorted(manifests)[-max(2, self._keep) :])
        kept = {n: sha256 for n, sha256 in manifests.items() if n in newest | always}
        if not any(self._is_taught(key, n, kept[n]) for n in sorted(kept, reverse=True)):
            others = sorted(manifests.keys() - kept.keys(), reverse=True)
            kept |= {n: manifests[n] for n in [n for n in others if self._is_taught(key, n, manifests[n])][:1]}
        pointer = Pointer(version=ref.number, last=self.next_version(key) - 1, manifests=kept)
        replace_file(self.folder(key) / CURRENT, pointer.to_bytes())
        return VersionRef(ref.number, ref.manifest_sha256, None, kept, pointer.last)

    def _is_taught(self, key: RoiKey, number: int, sha256: str | None) -> bool:
        try:
            return read_manifest(self.version_folder(key, number), sha256).is_taught
        except (DamagedError, NewerFormatError):
            return False

    def _keep_calibration(self, key: RoiKey) -> None:
        """Write the calibration file of the version in use if it is missing, so that a rollback finds it later."""
        try:
            manifest, _ = self.served_manifest(key)
            stored = self.calibration(key, manifest)
        except (UnknownRoiError, ArtifactCorruptError):
            return
        if stored.calibration is not None and not stored.has_own:
            data = stored.calibration.model_copy(update={"kept_with": manifest.version}).to_bytes()
            replace_file(self.version_folder(key, manifest.version) / CALIBRATION, data)

    def remove_version(self, key: RoiKey, number: int) -> None:
        """Remove a version. Its folder is renamed first, so that a half-removed folder is never read as a version."""
        folder = self.version_folder(key, number)
        gone = folder.with_name(f".{number}.{uuid.uuid4().hex}.tmp")
        with suppress(OSError):
            folder.rename(gone)
            shutil.rmtree(gone, ignore_errors=True)

    def _is_current(self, key: RoiKey, number: int) -> bool:
        try:
            ref = self.current(key)
        except (UnknownRoiError, ArtifactCorruptError):
            return False
        return ref.number == number and ref.damaged is None

    def _refuse_newer(self, key: RoiKey) -> None:
        folder = self.folder(key)
        versions = [self.version_folder(key, number) for number in self.numbers(key)]
        for path in (
            folder / CALIBRATION,
            *(version / name for version in versions for name in (MANIFEST, CALIBRATION)),
        ):
            with suppress(OSError, DamagedError):
                newest = Manifest.newest if path.name == MANIFEST else Calibration.newest
                unsealed(path.read_bytes(), f"{key}: {path.relative_to(folder)}", newest)
        with suppress(OSError, DamagedError):
            Pointer.from_lines((folder / CURRENT).read_bytes())
