"""Read artifacts: versions, calibrations, OK images. A reader needs no lock."""

from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from gateway.errors import ArtifactCorruptError, UnknownRoiError, UnknownVersionError
from gateway.store.atomic import read_replaced
from gateway.store.calibration_file import StoredCalibration, stored_calibration
from gateway.store.checksummed import DamagedError, sha256_of
from gateway.store.damage import ArtifactFaults
from gateway.store.folder_storage import FolderStorage
from gateway.store.labelled_images import LabelledImages
from gateway.store.manifest import CURRENT, MANIFEST, FileName, Manifest, VersionRef
from gateway.store.ok_images import OkFiles
from gateway.store.ok_maps import OkMaps
from gateway.store.place import STORED_IMAGES, Place, Storage
from gateway.store.pointer import read_pointer
from gateway.store.roi_key import RoiKey
from gateway.store.version_folder import (
    ok_maps_of,
    read_all_verified,
    read_file,
    read_manifest,
    read_served_verified,
    spatial_weights_of,
)

_T = TypeVar("_T")


@dataclass(frozen=True, slots=True)
class VerifiedVersion:
    """A version: every file that an inspection uses matches its checksum in the manifest."""

    ref: VersionRef
    """The version in use. It may be a later version that is damaged."""
    manifest: Manifest
    files: Mapping[FileName, bytes]
    weights: NDArray[np.float32] | None
    """[h, w], the spatial weights of the ROI."""
    damaged: tuple[str, ...]
    """Damage found in later versions, where this is not the version in use."""


class ArtifactReader:
    """The reading half of the store. Every method blocks: call it from a worker thread."""

    def __init__(self, storage: Path | Storage, faults: ArtifactFaults | None = None) -> None:
        """Read nothing yet.

        Args:
            storage: the models folder, or another storage.
            faults: is told of damage.
        """
        self.storage = FolderStorage(storage) if isinstance(storage, Path) else storage
        self.faults = faults or ArtifactFaults()

    def rois(self) -> list[RoiKey]:
        """Return all fitted ROIs, sorted."""
        return [key for key in self.folders() if self.is_fitted(key)]

    def unfitted(self) -> list[RoiKey]:
        """Return all ROIs that have stored images and were never fitted, sorted."""
        return [key for key in self.folders() if not self.is_fitted(key) and self.exists(key)]

    def folders(self) -> list[RoiKey]:
        """Return all ROIs that have a folder, fitted or not, sorted."""
        return sorted(self.storage.keys())

    def folder(self, key: RoiKey) -> Place:
        """Return the folder of an ROI. It holds everything except the audit trail."""
        return self.storage.folder(key)

    def is_fitted(self, key: RoiKey) -> bool:
        """Return whether an ROI was fitted. Its files may be damaged.

        In a bucket its pointer may be damaged too. Then it counts as fitted, and whoever reads it is told.
        """
        try:
            return (self.folder(key) / CURRENT).exists()
        except ArtifactCorruptError:
            return True

    def current(self, key: RoiKey) -> VersionRef:
        """Return the version in use.

        Raises:
            UnknownRoiError: the ROI was never fitted.
            ArtifactCorruptError: ``current`` is damaged and no version is whole.
            NewerFormatError: a newer gateway wrote ``current``.
        """
        try:
            data = read_replaced(self.folder(key) / CURRENT)
        except (FileNotFoundError, NotADirectoryError) as error:
            raise never_fitted(key) from error
        except OSError:
            return self._newest_whole(key, "'current' cannot be read")
        try:
            return read_pointer(data)
        except DamagedError as error:
            return self._newest_whole(key, str(error))

    def _newest_whole(self, key: RoiKey, damaged: str) -> VersionRef:
        whole = self._manifests_found(key)
        if not whole:
            raise ArtifactCorruptError(f"{key}: {damaged}; no version is whole")
        number = max(whole)
        return VersionRef(number, whole[number], damaged)

    def kept(self, key: RoiKey, ref: VersionRef) -> dict[int, str | None]:
        """Return the numbers of the kept versions, each with the SHA-256 of its manifest if ``current`` has it."""
        if ref.last is not None:
            return dict(ref.manifests)
        return {**dict.fromkeys(self.numbers(key)), ref.number: ref.manifest_sha256}

    def manifest(self, key: RoiKey, ref: VersionRef) -> Manifest:
        """Read a version's manifest.

        Raises:
            ArtifactCorruptError: the manifest is damaged or missing.
            NewerFormatError: a newer gateway wrote it.
        """
        try:
            return read_manifest(self.version_folder(key, ref.number), ref.manifest_sha256)
        except DamagedError as error:
            raise ArtifactCorruptError(f"{key}: version {ref.number}: {error}") from error

    def manifests(self, key: RoiKey) -> list[Manifest]:
        """Return the readable manifests of the kept versions, newest first.

        Raises:
            UnknownRoiError: the ROI was never fitted.
            ArtifactCorruptError: nothing whole is stored.
        """
        found = []
        for number, sha256 in sorted(self.kept(key, self.current(key)).items(), reverse=True):
            with suppress(DamagedError):
                found.append(read_manifest(self.version_folder(key, number), sha256))
        return found

    def latest_manifest(self, key: RoiKey) -> tuple[Manifest, list[str]] | None:
        """Return the manifest that a new fit builds on: the newest whole one, from the version in use backwards.

        Returns:
            The manifest and the damage found in later ones; None for an ROI that was never fitted.

        Raises:
            ArtifactCorruptError: no manifest is whole.
        """
        try:
            return self.served_manifest(key)
        except UnknownRoiError:
            return None

    def served_manifest(self, key: RoiKey, *, whole: bool = False) -> tuple[Manifest, list[str]]:
        """Return the same as `latest_manifest`, for an ROI that must have been fitted.

        Args:
            key: the ROI.
            whole: check the files of the version that an inspection uses, as it does when it loads them.

        Raises:
            UnknownRoiError: the ROI was never fitted.
            ArtifactCorruptError: no manifest is whole, or with `whole` no version.
        """
        ref = self.current(key)
        damaged = [ref.damaged] if ref.damaged else []
        for number, sha256, folder in self._candidates(key, ref):
            try:
                manifest = read_manifest(folder, sha256)
                if whole:
                    read_served_verified(folder, manifest)
            except DamagedError as error:
                damaged.append(f"version {number}: {error}")
            else:
                return manifest, damaged
        raise _nothing_whole(key, damaged)

    def is_whole(self, key: RoiKey, manifest: Manifest) -> bool:
        """Return whether all files of a version match its manifest."""
        try:
            read_all_verified(self.version_folder(key, manifest.version), manifest)
        except DamagedError:
            return False
        return True

    def whole_version(self, key: RoiKey, number: int) -> VersionRef:
        """Check all files of a kept version and return the version.

        Raises:
            UnknownRoiError: the ROI was never fitted.
            UnknownVersionError: the version is not kept or is damaged. The message names the kept versions.
        """
        kept = self.kept(key, self.current(key))
        numbers = ", ".join(str(n) for n in sorted(kept))
        if number not in kept:
            raise UnknownVersionError(f"version {number} of {key} is not kept; kept versions are {numbers}")
        folder = self.version_folder(key, number)
        try:
            manifest = read_manifest(folder, kept[number])
            read_all_verified(folder, manifest)
            return VersionRef(number, sha256_of(read_file(folder / MANIFEST)))
        except DamagedError as error:
            raise UnknownVersionError(
                f"version {number} of {key} is damaged: {error}; kept versions are {numbers}"
            ) from error

    def load(self, key: RoiKey, ref: VersionRef, build: Callable[[VerifiedVersion], _T]) -> _T:
        """Verify a version and build something from it. If it is damaged, use the newest whole version before it.

        Args:
            key: the ROI.
            ref: the version in use.
            build: makes the result. It raises `DamagedError` if the content of the files is wrong.

        Raises:
            ArtifactCorruptError: no version is whole.
            NewerFormatError: a newer gateway wrote it.
        """
        damaged = [ref.damaged] if ref.damaged else []
        for number, sha256, folder in self._candidates(key, ref):
            try:
                manifest = read_manifest(folder, sha256)
                files = read_served_verified(folder, manifest)
                weights = spatial_weights_of(files, manifest)
                return build(VerifiedVersion(ref, manifest, files, weights, tuple(damaged)))
            except DamagedError as error:
                damaged.append(f"version {number}: {error}")
        raise _nothing_whole(key, damaged)

    def ok_maps(self, key: RoiKey, manifest: Manifest) -> OkMaps | None:
        """Return the leave-one-out maps of a version. None if it has one image, or if an old gateway wrote it.

        Raises:
            ArtifactCorruptError: the maps are damaged.
        """
        try:
            return ok_maps_of(self.version_folder(key, manifest.version), manifest)
        except DamagedError as error:
            raise ArtifactCorruptError(f"{key}: version {manifest.version}: {error}") from error

    def calibration(self, key: RoiKey, manifest: Manifest) -> StoredCalibration:
        """Return the calibration of a version.

        The version's own file decides. If it is damaged, the ROI's ``calib.json`` is used, but only if it was kept
        with the same version: an older threshold never replaces a damaged one.

        Raises:
            ArtifactCorruptError: the calibration is damaged and no copy is whole.
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
        """Return the threshold of a version, or None if it has none or the file is damaged."""
        try:
            calibration = self.calibration(key, manifest).calibration
        except ArtifactCorruptError:
            return None
        return None if calibration is None else calibration.threshold

    def ok(self, key: RoiKey) -> OkFiles:
        """Return the OK images of an ROI."""
        return OkFiles(self.storage, "ok", key, self.faults)

    def images(self, key: RoiKey) -> LabelledImages:
        """Return the stored images of an ROI."""
        return LabelledImages(self.storage, STORED_IMAGES, key, self.faults)

    def exists(self, key: RoiKey) -> bool:
        """Return whether an ROI was fitted or has stored images."""
        return self.is_fitted(key) or any(self.images(key).folder.glob("*.json"))

    def version_folder(self, key: RoiKey, number: int) -> Place:
        """Return the folder of a version. It need not exist."""
        return self.folder(key) / "versions" / str(number)

    def numbers(self, key: RoiKey) -> set[int]:
        """Return the numbers of all version folders, of kept versions and orphans."""
        return {int(p.name) for p in (self.folder(key) / "versions").glob("[0-9]*") if p.name.isdecimal()}

    def _candidates(self, key: RoiKey, ref: VersionRef) -> list[tuple[int, str | None, Place]]:
        """Return the version in use and the kept ones before it, newest first.

        Versions after it are left out: a rollback must not undo itself.
        """
        kept = self.kept(key, ref)
        return [(n, kept[n], self.version_folder(key, n)) for n in sorted(kept, reverse=True) if n <= ref.number]

    def _manifests_found(self, key: RoiKey) -> dict[int, str]:
        """Return the SHA-256 of each readable manifest, by version."""
        found = {}
        for number in self.numbers(key):
            folder = self.version_folder(key, number)
            with suppress(DamagedError):
                read_manifest(folder, None)
                found[number] = sha256_of(read_file(folder / MANIFEST))
        return found


def never_fitted(key: RoiKey) -> UnknownRoiError:
    """Return the error for an ROI that was never fitted."""
    return UnknownRoiError(f"{key} was never fitted")


def _nothing_whole(key: RoiKey, damaged: list[str]) -> ArtifactCorruptError:
    return ArtifactCorruptError(f"{key}: {'; '.join(damaged)}; no version is whole")
