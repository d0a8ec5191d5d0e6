"""Artifacts on disk: versions, checksums, locks.

``models/<role_id>/<roi_id>/`` holds ``ok/`` (images as sent and their tokens), ``versions/<n>/`` (memory bank, index,
leave-one-out maps, spatial weights where there are any, manifest), ``current`` (which version is in use) and
``calib.json``. A writer holds the ROI's lock, which works across processes and hosts, writes a version aside and then
moves ``current``; a reader needs no lock. A calibration names the bank and the weights that it was made for by their
checksums, so that whoever reads between the two writes of a fit sees a stale calibration, never a wrong one.
"""

import hashlib
import logging
import shutil
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from filelock import FileLock, Timeout
from numpy.typing import NDArray
from pydantic import ValidationError

from gateway.array_files import npy_bytes, npz_bytes, read_npz, read_weights
from gateway.durable import replace_file, storage_errors, sync_folder, write_file
from gateway.errors import ArtifactCorruptError, OverloadedError, UnknownRoiError
from gateway.manifest import INDEX, LEAVE_ONE_OUT, MANIFEST, MEMORY, WEIGHTS, Calibration, Manifest, OkImage, VersionRef
from gateway.ok_maps import OkMaps
from gateway.patchcore.memory_bank import MemoryBank
from gateway.patchcore.neighbours import FaissSearch, NeighbourSearch, SearchBackend, build_search, faiss_available
from gateway.roi_key import RoiKey, is_valid_id

log = logging.getLogger(__name__)

_LOCKS = ".locks"
_TRASH = ".trash"


@dataclass(frozen=True, slots=True)
class LoadedBank:
    """A verified version, ready to be searched."""

    ref: VersionRef
    manifest: Manifest
    bank: MemoryBank
    search: NeighbourSearch
    weights: NDArray[np.float32] | None = None
    """[h, w], the spatial weights of the ROI."""
    damaged: tuple[str, ...] = ()
    """What was found damaged on the way to this version, when it is not the current one."""

    @property
    def n_bytes(self) -> int:
        """Memory held by the arrays of the bank and its search."""
        return self.bank.n_bytes + self.search.n_bytes


class _DamagedError(Exception):
    """A version that is not what its manifest says."""


class ArtifactStore:
    """The folder of all ROIs. Every method blocks: call it from a worker thread."""

    def __init__(self, root: Path, *, keep_versions: int, search: SearchBackend = "auto") -> None:
        self.root = root
        self._search = search
        self._keep = keep_versions

    # --- readers -------------------------------------------------------------------------------------------------

    def rois(self) -> list[RoiKey]:
        """Every fitted ROI, sorted."""
        keys = []
        for current in self.root.glob("*/*/current"):
            role_id, roi_id = current.parent.parent.name, current.parent.name
            if is_valid_id(role_id) and is_valid_id(roi_id):
                keys.append(RoiKey(role_id, roi_id))
        return sorted(keys)

    def current(self, key: RoiKey) -> VersionRef:
        """The version in use.

        Raises:
            UnknownRoiError: never fitted.
            ArtifactCorruptError: ``current`` is not what a fit writes, and no version is whole.
        """
        try:
            text = (self._folder(key) / "current").read_text()
        except (FileNotFoundError, NotADirectoryError) as error:
            raise UnknownRoiError(f"{key} was never fitted") from error
        except (OSError, UnicodeDecodeError):
            return self._newest_whole(key, "'current' cannot be read")
        number, _, sha256 = text.strip().partition(" ")
        if not (number.isdecimal() and len(sha256) == 64):
            return self._newest_whole(key, "'current' is damaged")
        return VersionRef(int(number), sha256)

    def is_fitted(self, key: RoiKey) -> bool:
        """Whether there is anything of it, whole or not."""
        return (self._folder(key) / "current").exists()

    def is_whole(self, key: RoiKey, manifest: Manifest) -> bool:
        """Whether every file of a version is what its manifest says."""
        folder = self._version_folder(key, manifest.version)
        try:
            for name in manifest.files:
                self._verified(folder, manifest, name)
        except _DamagedError:
            return False
        return True

    def _newest_whole(self, key: RoiKey, damaged: str) -> VersionRef:
        for number in sorted(self._versions(key), reverse=True):
            folder = self._version_folder(key, number)
            try:
                self._manifest(folder, None)
                return VersionRef(number, _sha256((folder / MANIFEST).read_bytes()), damaged)
            except (_DamagedError, OSError):
                continue
        raise ArtifactCorruptError(f"{key}: {damaged}; no version is whole")

    def manifest(self, key: RoiKey, ref: VersionRef) -> Manifest:
        """Read a version's manifest.

        Raises:
            ArtifactCorruptError: it is damaged or gone.
        """
        try:
            return self._manifest(self._version_folder(key, ref.number), ref.manifest_sha256)
        except _DamagedError as error:
            raise ArtifactCorruptError(f"{key}: version {ref.number}: {error}") from error

    def latest_manifest(self, key: RoiKey) -> tuple[Manifest, list[str]] | None:
        """What a new fit builds on: the current version's manifest or, where that is damaged, the newest whole one.

        Returns:
            The manifest and what was found damaged before it; None for an ROI that was never fitted.

        Raises:
            ArtifactCorruptError: none is whole.
        """
        try:
            ref = self.current(key)
        except UnknownRoiError:
            return None
        damaged = [ref.damaged] if ref.damaged else []
        for number, folder in self._folders_from(key, ref):
            try:
                return self._manifest(folder, ref.manifest_sha256 if number == ref.number else None), damaged
            except _DamagedError as error:
                damaged.append(f"version {number}: {error}")
        raise ArtifactCorruptError(f"{key}: {'; '.join(damaged)}; no version is whole")

    def served_manifest(self, key: RoiKey) -> tuple[Manifest, list[str]]:
        """As `latest_manifest`, of an ROI that was fitted.

        Raises:
            UnknownRoiError: never fitted.
            ArtifactCorruptError: no manifest is whole.
        """
        latest = self.latest_manifest(key)
        if latest is None:
            raise UnknownRoiError(f"{key} was never fitted")
        return latest

    def load(self, key: RoiKey, ref: VersionRef) -> LoadedBank:
        """Load and verify a version; where it is damaged, the newest whole one before it.

        Raises:
            ArtifactCorruptError: none is whole.
        """
        damaged = [ref.damaged] if ref.damaged else []
        for number, folder in self._folders_from(key, ref):
            try:
                expected = ref.manifest_sha256 if number == ref.number else None
                manifest = self._manifest(folder, expected)
                bank, search, weights = self._bank(folder, manifest)
            except _DamagedError as error:
                damaged.append(f"version {number}: {error}")
                log.error("%s: %s", key, damaged[-1])
                continue
            return LoadedBank(ref, manifest, bank, search, weights, tuple(damaged))
        raise ArtifactCorruptError(f"{key}: {'; '.join(damaged)}; no version is whole")

    def ok_maps(self, key: RoiKey, manifest: Manifest) -> OkMaps | None:
        """Leave-one-out maps of a version; None where it has none: one image only, or written before they were kept.

        Raises:
            ArtifactCorruptError: they are damaged.
        """
        if LEAVE_ONE_OUT not in manifest.files:
            return None
        folder = self._version_folder(key, manifest.version)
        try:
            distances = read_npz(self._verified(folder, manifest, LEAVE_ONE_OUT))["distances"]
            weights = None
            if WEIGHTS in manifest.files:
                weights = read_weights(self._verified(folder, manifest, WEIGHTS), manifest.token_hw)
        except (_DamagedError, KeyError, ValueError) as error:
            raise ArtifactCorruptError(f"{key}: version {manifest.version}: {error}") from error
        return OkMaps(distances, manifest.token_hw, tuple(image.frame for image in manifest.images), weights)

    def calibration(self, key: RoiKey) -> Calibration | None:
        """Read ``calib.json``.

        Raises:
            ArtifactCorruptError: it is damaged.
        """
        path = self._folder(key) / "calib.json"
        try:
            return Calibration.model_validate_json(path.read_bytes())
        except FileNotFoundError:
            return None
        except (OSError, ValidationError) as error:
            raise ArtifactCorruptError(f"{key}: calib.json is damaged", "Calibrate this ROI again.") from error

    def ok_image(self, key: RoiKey, image: OkImage) -> bytes:
        """The bytes of an OK image as it was sent.

        Raises:
            ArtifactCorruptError: it is damaged or gone.
        """
        try:
            data = (self._folder(key) / "ok" / f"{image.sha256}.{image.extension}").read_bytes()
        except OSError as error:
            raise ArtifactCorruptError(f"{key}: OK image {image.sha256} cannot be read: {error.strerror}") from error
        if hashlib.sha256(data).hexdigest() != image.sha256:
            raise ArtifactCorruptError(f"{key}: OK image {image.sha256} is damaged")
        return data

    def ok_tokens(self, key: RoiKey, sha256: str, fingerprint: str) -> NDArray[np.float16] | None:
        """Tokens of an OK image, float16 [N, D], or None where they are absent, damaged or another model's."""
        try:
            arrays = read_npz((self._folder(key) / "ok" / f"{sha256}.npz").read_bytes())
            tokens = arrays["tokens"]
            digest = hashlib.sha256(np.ascontiguousarray(tokens).data).hexdigest()
            whole = str(arrays["fingerprint"]) == fingerprint and str(arrays["sha256"]) == digest
        except (OSError, ValueError, KeyError):
            return None
        return tokens.astype(np.float16, copy=False) if whole else None

    # --- writers -------------------------------------------------------------------------------------------------

    @contextmanager
    def lock(self, key: RoiKey, timeout_s: float) -> Iterator[None]:
        """Hold an ROI against every other writer, in this process and others.

        Raises:
            OverloadedError: another writer held it all that time.
            StorageFullError: the models folder cannot be written.
        """
        folder = self.root / _LOCKS / key.role_id
        with storage_errors():
            folder.mkdir(parents=True, exist_ok=True)
            lock = FileLock(folder / f"{key.roi_id}.lock", timeout=timeout_s, thread_local=False)
            try:
                lock.acquire()
            except Timeout as error:
                raise OverloadedError(
                    f"{key}: another fit or change of this ROI is still at work after {timeout_s:g} s",
                    retry_after_s=max(1, round(timeout_s / 2)),
                ) from error
        try:
            yield
        finally:
            lock.release()

    def add_ok_image(self, key: RoiKey, image: OkImage, data: bytes) -> None:
        """Keep an OK image as sent. It counts only once a manifest names it."""
        with storage_errors():
            folder = self._folder(key) / "ok"
            folder.mkdir(parents=True, exist_ok=True)
            replace_file(folder / f"{image.sha256}.{image.extension}", data)

    def add_ok_tokens(self, key: RoiKey, sha256: str, fingerprint: str, tokens: NDArray[np.float16]) -> None:
        """Keep the tokens of an OK image, so that the next fit need not compute them."""
        digest = hashlib.sha256(np.ascontiguousarray(tokens).data).hexdigest()
        data = npz_bytes(tokens=tokens, fingerprint=np.array(fingerprint), sha256=np.array(digest))
        with storage_errors():
            replace_file(self._folder(key) / "ok" / f"{sha256}.npz", data)

    def next_version(self, key: RoiKey) -> int:
        """The number that the next version will have."""
        return max(self._versions(key), default=0) + 1

    def publish(
        self,
        key: RoiKey,
        manifest: Manifest,
        bank: MemoryBank,
        weights: NDArray[np.float32] | None = None,
        ok_maps: OkMaps | None = None,
    ) -> tuple[VersionRef, Manifest]:
        """Write a version aside, see it on disk, and make it the current one. The caller holds the lock.

        Args:
            key: the ROI.
            manifest: without its `files`.
            bank: the memory bank.
            weights: float32 [h, w], the spatial weights of the ROI.
            ok_maps: leave-one-out maps; None where there is one image only.

        Raises:
            StorageFullError: what was there before is untouched.
        """
        files = {
            MEMORY: npz_bytes(
                tokens=bank.tokens,
                image_index=bank.image_index,
                token_index=bank.token_index,
                token_hw=np.array(manifest.token_hw, np.int32),
                dim=np.array(manifest.dim, np.int32),
            )
        }
        if faiss_available():
            files[INDEX] = FaissSearch.build(bank.tokens).to_bytes()
        if weights is not None:
            files[WEIGHTS] = npy_bytes(weights)
        if ok_maps is not None:
            files[LEAVE_ONE_OUT] = npz_bytes(distances=ok_maps.distances, mean=ok_maps.mean(), std=ok_maps.spread())
        manifest = manifest.model_copy(update={"files": {name: _sha256(data) for name, data in files.items()}})
        files[MANIFEST] = manifest.model_dump_json(indent=1).encode()
        ref = VersionRef(manifest.version, _sha256(files[MANIFEST]))

        final = self._version_folder(key, manifest.version)
        aside = final.with_name(f".{manifest.version}.{uuid.uuid4().hex}.tmp")
        with storage_errors():
            try:
                aside.mkdir(parents=True)
                for name, data in files.items():
                    write_file(aside / name, data)
                sync_folder(aside)
                aside.rename(final)
                sync_folder(final.parent)
                replace_file(self._folder(key) / "current", f"{ref.number} {ref.manifest_sha256}\n".encode())
            except OSError:
                shutil.rmtree(aside, ignore_errors=True)
                if not self._is_current(key, ref):
                    shutil.rmtree(final, ignore_errors=True)
                raise
        # The one before stays in any case: somebody may be reading it.
        for old in sorted(self._versions(key))[: -max(2, self._keep)]:
            shutil.rmtree(self._version_folder(key, old), ignore_errors=True)
        return ref, manifest

    def set_calibration(self, key: RoiKey, calibration: Calibration) -> None:
        """Replace ``calib.json``. The caller holds the lock."""
        with storage_errors():
            replace_file(self._folder(key) / "calib.json", calibration.model_dump_json(indent=1).encode())

    def delete(self, key: RoiKey) -> None:
        """Remove an ROI and all that it learned, at once for every reader. The caller holds the lock.

        Raises:
            UnknownRoiError: there is none.
        """
        trash = self.root / _TRASH
        with storage_errors():
            trash.mkdir(exist_ok=True)
            gone = trash / uuid.uuid4().hex
            try:
                self._folder(key).rename(gone)
            except FileNotFoundError as error:
                raise UnknownRoiError(f"{key} was never fitted") from error
            sync_folder(self._folder(key).parent)
        shutil.rmtree(gone, ignore_errors=True)

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

    def _folder(self, key: RoiKey) -> Path:
        return self.root / key.role_id / key.roi_id

    def _is_current(self, key: RoiKey, ref: VersionRef) -> bool:
        try:
            return self.current(key) == ref
        except (UnknownRoiError, ArtifactCorruptError):
            return False

    def _version_folder(self, key: RoiKey, number: int) -> Path:
        return self._folder(key) / "versions" / str(number)

    def _versions(self, key: RoiKey) -> list[int]:
        return [int(p.name) for p in (self._folder(key) / "versions").glob("[0-9]*") if p.name.isdecimal()]

    def _folders_from(self, key: RoiKey, ref: VersionRef) -> list[tuple[int, Path]]:
        """The version in use and those before it, newest first."""
        older = sorted((n for n in self._versions(key) if n < ref.number), reverse=True)
        return [(n, self._version_folder(key, n)) for n in (ref.number, *older)]

    def _manifest(self, folder: Path, sha256: str | None) -> Manifest:
        try:
            data = (folder / MANIFEST).read_bytes()
        except OSError as error:
            raise _DamagedError(f"{MANIFEST}: {error.strerror}") from error
        if sha256 is not None and _sha256(data) != sha256:
            raise _DamagedError(f"{MANIFEST} fails its checksum")
        try:
            return Manifest.model_validate_json(data)
        except ValidationError as error:
            raise _DamagedError(f"{MANIFEST} is not of format 1") from error

    def _verified(self, folder: Path, manifest: Manifest, name: str) -> bytes:
        try:
            data = (folder / name).read_bytes()
        except OSError as error:
            raise _DamagedError(f"{name}: {error.strerror}") from error
        if _sha256(data) != manifest.files[name]:
            raise _DamagedError(f"{name} fails its checksum")
        return data

    def _bank(self, folder: Path, manifest: Manifest) -> tuple[MemoryBank, NeighbourSearch, NDArray[np.float32] | None]:
        files = {name: self._verified(folder, manifest, name) for name in manifest.files}
        try:
            arrays = read_npz(files[MEMORY])
            bank = MemoryBank(
                tokens=arrays["tokens"],
                image_index=arrays["image_index"],
                token_index=arrays["token_index"],
                covering_radius=manifest.covering_radius,
            )
            weights = read_weights(files[WEIGHTS], manifest.token_hw) if WEIGHTS in files else None
            return bank, build_search(bank.tokens, self._search), weights
        except (KeyError, ValueError) as error:
            raise _DamagedError(str(error)) from error


def _sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()
