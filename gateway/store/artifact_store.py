"""Artifacts on disk: versions, checksums, locks.

``models/<role_id>/<roi_id>/`` holds

- ``ok/``: OK images as sent, and their tokens;
- ``versions/<n>/``: memory bank and index, or a trained network; leave-one-out maps, spatial weights where there are
  any, a manifest with the checksums of those, and the calibration that goes with the version;
- ``current``: which version is in use, and the checksums of the manifests of all that are kept;
- ``calib.json``: the calibration in use once more, for people, and for when the version's own is damaged.

A writer holds the ROI's lock, which works across processes and hosts, writes a version aside and then moves
``current``: with it come bank and threshold at once. A reader needs no lock. Every file is checked against a checksum
when it is read, and nothing is believed that fails it.
"""

import logging
import re
import shutil
import uuid
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from gateway.errors import ArtifactCorruptError, NewerFormatError, UnknownRoiError, UnknownVersionError
from gateway.store.atomic import read_replaced, replace_file, storage_errors, sync_folder, write_file
from gateway.store.audit import AuditTrail
from gateway.store.calibration_file import StoredCalibration, mirror_calibration, stored_calibration
from gateway.store.checksummed import DamagedError, sha256_of, unsealed
from gateway.store.damage import ArtifactFaults
from gateway.store.lock import held
from gateway.store.manifest import CALIBRATION, CURRENT, MANIFEST, Calibration, FileName, Manifest, Pointer, VersionRef
from gateway.store.ok_images import OkFiles
from gateway.store.ok_maps import OkMaps
from gateway.store.roi_key import RoiKey, is_valid_id
from gateway.store.version_folder import (
    ok_maps_of,
    read_all_verified,
    read_file,
    read_manifest,
    spatial_weights_of,
    version_files,
)

log = logging.getLogger(__name__)

_T = TypeVar("_T")

_LOCKS = ".locks"
TRASH = ".trash"
_FORMAT_1_POINTER = re.compile(rb"([0-9]{1,9}) ([0-9a-f]{64})\n?")
_NEVER_FITTED = "was never fitted"


@dataclass(frozen=True, slots=True)
class VerifiedVersion:
    """A version whose every file is what its manifest says."""

    ref: VersionRef
    """The version in use, which may be a later one that is damaged."""
    manifest: Manifest
    files: Mapping[FileName, bytes]
    weights: NDArray[np.float32] | None
    """[h, w], the spatial weights of the ROI."""
    damaged: tuple[str, ...]
    """What was found damaged on the way to this version, when it is not the current one."""


class ArtifactStore:
    """The folder of all ROIs. Every method blocks: call it from a worker thread."""

    def __init__(self, root: Path, *, keep_versions: int, faults: ArtifactFaults | None = None) -> None:
        self.root = root
        self.faults = faults or ArtifactFaults()
        self.audit = AuditTrail(root, self.faults)
        self._keep = keep_versions

    # --- readers -------------------------------------------------------------------------------------------------

    def rois(self) -> list[RoiKey]:
        """Every fitted ROI, sorted."""
        return [key for key in self.folders() if self.is_fitted(key)]

    def folders(self) -> list[RoiKey]:
        """Every ROI that has a folder, fitted or not, sorted."""
        return sorted(
            RoiKey(folder.parent.name, folder.name)
            for folder in self.root.glob("*/*")
            if is_valid_id(folder.parent.name) and is_valid_id(folder.name) and folder.is_dir()
        )

    def folder(self, key: RoiKey) -> Path:
        """Where all of an ROI is kept but its audit trail."""
        return self.root / key.role_id / key.roi_id

    def is_fitted(self, key: RoiKey) -> bool:
        """Whether there is anything of it, whole or not."""
        return (self.folder(key) / CURRENT).exists()

    def current(self, key: RoiKey) -> VersionRef:
        """The version in use.

        Raises:
            UnknownRoiError: never fitted.
            ArtifactCorruptError: ``current`` is not what a fit writes, and no version is whole.
            NewerFormatError: a newer gateway wrote it.
        """
        try:
            data = read_replaced(self.folder(key) / CURRENT)
        except (FileNotFoundError, NotADirectoryError) as error:
            raise UnknownRoiError(f"{key} {_NEVER_FITTED}") from error
        except OSError:
            return self._newest_whole(key, "'current' cannot be read")
        if old := _FORMAT_1_POINTER.fullmatch(data):
            return VersionRef(int(old[1]), old[2].decode())
        try:
            return _pointed_to(data)
        except DamagedError as error:
            return self._newest_whole(key, str(error))

    def _newest_whole(self, key: RoiKey, damaged: str) -> VersionRef:
        whole = self._manifests_found(key)
        if not whole:
            raise ArtifactCorruptError(f"{key}: {damaged}; no version is whole")
        number = max(whole)
        return VersionRef(number, whole[number], damaged)

    def kept(self, key: RoiKey, ref: VersionRef) -> dict[int, str | None]:
        """The versions kept, by number, with the SHA-256 of their manifests where ``current`` tells it."""
        if ref.last is not None:
            return dict(ref.manifests)
        return {**dict.fromkeys(self.numbers(key)), ref.number: ref.manifest_sha256}

    def manifest(self, key: RoiKey, ref: VersionRef) -> Manifest:
        """Read a version's manifest.

        Raises:
            ArtifactCorruptError: it is damaged or gone.
            NewerFormatError: a newer gateway wrote it.
        """
        try:
            return read_manifest(self.version_folder(key, ref.number), ref.manifest_sha256)
        except DamagedError as error:
            raise ArtifactCorruptError(f"{key}: version {ref.number}: {error}") from error

    def manifests(self, key: RoiKey) -> list[Manifest]:
        """Of every version kept whose manifest can be read, newest first.

        Raises:
            UnknownRoiError: never fitted.
            ArtifactCorruptError: nothing whole is stored.
        """
        found = []
        for number, sha256 in sorted(self.kept(key, self.current(key)).items(), reverse=True):
            with suppress(DamagedError):
                found.append(read_manifest(self.version_folder(key, number), sha256))
        return found

    def latest_manifest(self, key: RoiKey) -> tuple[Manifest, list[str]] | None:
        """What a new fit builds on: the current version's manifest or, where that is damaged, the last before it.

        Returns:
            The manifest and what was found damaged before it; None for an ROI that was never fitted.

        Raises:
            ArtifactCorruptError: none is whole.
        """
        try:
            return self.served_manifest(key)
        except UnknownRoiError:
            return None

    def served_manifest(self, key: RoiKey, *, whole: bool = False) -> tuple[Manifest, list[str]]:
        """As `latest_manifest`, of an ROI that was fitted.

        Args:
            key: the ROI.
            whole: hold every file of the version to its checksum, as an inspection does when it loads it.

        Raises:
            UnknownRoiError: never fitted.
            ArtifactCorruptError: no manifest, or with `whole` no version, is whole.
        """
        ref = self.current(key)
        damaged = [ref.damaged] if ref.damaged else []
        for number, sha256, folder in self._candidates(key, ref):
            try:
                manifest = read_manifest(folder, sha256)
                if whole:
                    read_all_verified(folder, manifest)
            except DamagedError as error:
                damaged.append(f"version {number}: {error}")
            else:
                return manifest, damaged
        raise _nothing_whole(key, damaged)

    def is_whole(self, key: RoiKey, manifest: Manifest) -> bool:
        """Whether every file of a version is what its manifest says."""
        try:
            read_all_verified(self.version_folder(key, manifest.version), manifest)
        except DamagedError:
            return False
        return True

    def whole_version(self, key: RoiKey, number: int) -> VersionRef:
        """A version that is kept, every file of it checked.

        Raises:
            UnknownRoiError: never fitted.
            UnknownVersionError: not kept, or damaged; names those that are kept.
        """
        kept = self.kept(key, self.current(key))
        numbers = ", ".join(str(n) for n in sorted(kept))
        if number not in kept:
            raise UnknownVersionError(f"version {number} of {key} is not kept; there are {numbers}")
        folder = self.version_folder(key, number)
        try:
            manifest = read_manifest(folder, kept[number])
            read_all_verified(folder, manifest)
            return VersionRef(number, sha256_of(read_file(folder / MANIFEST)))
        except DamagedError as error:
            raise UnknownVersionError(
                f"version {number} of {key} is damaged: {error}; kept, whole or not, are {numbers}"
            ) from error

    def load(self, key: RoiKey, ref: VersionRef, build: Callable[[VerifiedVersion], _T]) -> _T:
        """Verify a version and build something from it; where it is damaged, from the last whole one before it.

        Args:
            key: the ROI.
            ref: the version in use.
            build: makes the result; raises `DamagedError` where the files do not hold what they should.

        Raises:
            ArtifactCorruptError: none is whole.
            NewerFormatError: a newer gateway wrote it.
        """
        damaged = [ref.damaged] if ref.damaged else []
        for number, sha256, folder in self._candidates(key, ref):
            try:
                manifest = read_manifest(folder, sha256)
                files = read_all_verified(folder, manifest)
                weights = spatial_weights_of(files, manifest)
                return build(VerifiedVersion(ref, manifest, files, weights, tuple(damaged)))
            except DamagedError as error:
                damaged.append(f"version {number}: {error}")
        raise _nothing_whole(key, damaged)

    def ok_maps(self, key: RoiKey, manifest: Manifest) -> OkMaps | None:
        """Leave-one-out maps of a version; None where it has none: one image only, or written before they were kept.

        Raises:
            ArtifactCorruptError: they are damaged.
        """
        try:
            return ok_maps_of(self.version_folder(key, manifest.version), manifest)
        except DamagedError as error:
            raise ArtifactCorruptError(f"{key}: version {manifest.version}: {error}") from error

    def calibration(self, key: RoiKey, manifest: Manifest) -> StoredCalibration:
        """The calibration that goes with a version.

        The version's own file decides. The ROI's ``calib.json`` is checked with it, and answers where the own one is
        damaged and this one was kept with the same version; an older threshold never takes a damaged one's place.

        Raises:
            ArtifactCorruptError: it is damaged, and no copy is whole.
            NewerFormatError: a newer gateway wrote it.
        """
        try:
            return stored_calibration(self.folder(key), self.version_folder(key, manifest.version), manifest)
        except DamagedError as error:
            raise ArtifactCorruptError(
                f"{key}: the calibration of version {manifest.version} is damaged: {error}",
                "Calibrate this ROI again, or roll back to a version whose calibration is whole.",
            ) from error

    def threshold(self, key: RoiKey, manifest: Manifest) -> float | None:
        """The threshold that goes with a version; None where it has none or it cannot be read."""
        try:
            calibration = self.calibration(key, manifest).calibration
        except ArtifactCorruptError:
            return None
        return None if calibration is None else calibration.threshold

    def ok(self, key: RoiKey) -> OkFiles:
        """The OK images of an ROI."""
        return OkFiles(self.folder(key) / "ok", key, self.faults)

    # --- writers -------------------------------------------------------------------------------------------------

    @contextmanager
    def lock(self, key: RoiKey, timeout_s: float) -> Iterator[None]:
        """Hold an ROI against every other writer, in this process and others.

        Raises:
            OverloadedError: another writer held it all that time.
            StorageFullError: the models folder cannot be written.
            NewerFormatError: a newer gateway wrote something of it, which this one must not touch.
        """
        with held(self.root / _LOCKS / key.role_id / f"{key.roi_id}.lock", str(key), timeout_s):
            self._refuse_newer(key)
            yield

    def next_version(self, key: RoiKey) -> int:
        """The number that the next version will have: one that none had before."""
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
        """Write a version aside, see it on disk, and make it the current one. The caller holds the lock.

        Args:
            key: the ROI.
            manifest: without its `files`.
            content: what the detector is made of, as `Detector.files` gives it.
            weights: float32 [h, w], the spatial weights of the ROI.
            ok_maps: leave-one-out maps; None where there is one image only.
            calibration: that goes with the version; one made for this very version is bound to it.

        Raises:
            StorageFullError: what was there before is untouched.
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
                # Those of a new role or ROI; that of the ROI itself is synced with `current`.
                for folder in (self.folder(key).parent, self.root):
                    sync_folder(folder)
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
        """Make a kept version the current one, and its calibration with it, at once. The caller holds the lock.

        Raises:
            StorageFullError: what was there before is untouched.
        """
        with storage_errors():
            self._keep_calibration(key)
            ref = self._point_to(key, ref)
        mirror_calibration(self.folder(key), self.version_folder(key, ref.number), self.manifest(key, ref))
        return ref

    def set_calibration(self, key: RoiKey, manifest: Manifest, calibration: Calibration) -> None:
        """Replace the calibration of a version. The caller holds the lock.

        Raises:
            StorageFullError: what was there before is untouched.
        """
        data = calibration.model_copy(update={"kept_with": manifest.version}).to_bytes()
        with storage_errors():
            replace_file(self.version_folder(key, manifest.version) / CALIBRATION, data)
        mirror_calibration(self.folder(key), self.version_folder(key, manifest.version), manifest)

    def drop_unnamed_images(self, key: RoiKey) -> int:
        """Remove OK images and tokens that no kept version names, as far as all can be read. The caller holds the lock.

        Returns:
            How many files went.
        """
        try:
            ref = self.current(key)
            manifests = self.manifests(key)
        except (UnknownRoiError, ArtifactCorruptError):
            return 0
        if ref.damaged or len(manifests) != len(self.kept(key, ref)):
            return 0  # whoever cannot be read may name them
        return self.ok(key).keep_only({i.sha256 for m in manifests for i in (*m.images, *m.excluded)})

    def delete(self, key: RoiKey) -> None:
        """Remove an ROI and all that it learned, at once for every reader. The caller holds the lock.

        Raises:
            UnknownRoiError: there is none.
        """
        trash = self.root / TRASH
        with storage_errors():
            trash.mkdir(exist_ok=True)
            gone = trash / uuid.uuid4().hex
            try:
                self.folder(key).rename(gone)
            except FileNotFoundError as error:
                raise UnknownRoiError(f"{key} {_NEVER_FITTED}") from error
            sync_folder(self.folder(key).parent)
        shutil.rmtree(gone, ignore_errors=True)
        self.faults.forget(key)

    def check_writable(self) -> None:
        """See whether something can be persisted.

        Raises:
            StorageFullError: no.
        """
        with storage_errors():
            self.root.mkdir(parents=True, exist_ok=True)
            probe = self.root / f".probe.{uuid.uuid4().hex}"
            write_file(probe, b"ok")
            probe.unlink(missing_ok=True)

    # --- inside --------------------------------------------------------------------------------------------------

    def version_folder(self, key: RoiKey, number: int) -> Path:
        """Where a version is, if it is kept."""
        return self.folder(key) / "versions" / str(number)

    def numbers(self, key: RoiKey) -> set[int]:
        """Of the versions that lie there, kept or orphans."""
        return {int(p.name) for p in (self.folder(key) / "versions").glob("[0-9]*") if p.name.isdecimal()}

    def _candidates(self, key: RoiKey, ref: VersionRef) -> list[tuple[int, str | None, Path]]:
        """The version in use and those before it, newest first: one rolled back from does not come again by itself."""
        kept = self.kept(key, ref)
        return [(n, kept[n], self.version_folder(key, n)) for n in sorted(kept, reverse=True) if n <= ref.number]

    def _manifests_found(self, key: RoiKey) -> dict[int, str]:
        """SHA-256 of every manifest that lies there and can be read."""
        found = {}
        for number in self.numbers(key):
            folder = self.version_folder(key, number)
            with suppress(DamagedError):
                read_manifest(folder, None)
                found[number] = sha256_of(read_file(folder / MANIFEST))
        return found

    def _point_to(self, key: RoiKey, ref: VersionRef) -> VersionRef:
        """Move ``current``; it lists the newest versions, this one, and the one before, which may still be read.

        Where none of these learns from OK images here, the newest that does is listed too: to be able to go back to it.
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
        """See that the version in use has a whole calibration of its own, before it may be left and come back to."""
        try:
            manifest, _ = self.served_manifest(key)
            stored = self.calibration(key, manifest)
        except (UnknownRoiError, ArtifactCorruptError):
            return
        if stored.calibration is not None and not stored.has_own:
            data = stored.calibration.model_copy(update={"kept_with": manifest.version}).to_bytes()
            replace_file(self.version_folder(key, manifest.version) / CALIBRATION, data)

    def remove_version(self, key: RoiKey, number: int) -> None:
        """Take a version away: out of the way first, so that no half of it is ever taken for a version."""
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


@lru_cache(maxsize=512)
def _pointed_to(data: bytes) -> VersionRef:
    # Read for every inspection, and nearly always the same.
    pointer = Pointer.from_lines(data)
    damaged = None if data == pointer.to_bytes() else "'current' is damaged, its second copy answers"
    return VersionRef(pointer.version, pointer.sha256, damaged, pointer.manifests, pointer.last)


def _nothing_whole(key: RoiKey, damaged: list[str]) -> ArtifactCorruptError:
    return ArtifactCorruptError(f"{key}: {'; '.join(damaged)}; no version is whole")
