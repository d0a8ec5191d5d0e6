"""Export one version of an ROI from a models folder, and import it into another."""

import os
import zipfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from io import BytesIO
from pathlib import Path

import numpy as np
import orjson
from numpy.typing import NDArray
from structlog.contextvars import bound_contextvars

from artifacts.archive import AUDIT_COPY, Archive, ArchiveError, Contents, Limits, opened, write_archive
from artifacts.stored_images import checked_images, exported_images, import_images
from gateway.detectors import Detector, load_detector
from gateway.errors import GatewayError
from gateway.images.decoding import Limits as ImageLimits
from gateway.images.decoding import read_header
from gateway.settings import Settings
from gateway.store.arrays import read_npz
from gateway.store.artifact_store import ArtifactStore
from gateway.store.audit import Change
from gateway.store.checksummed import DamagedError, unsealed_npz
from gateway.store.labelled_images import ImageRecord
from gateway.store.manifest import CALIBRATION, LEAVE_ONE_OUT, MANIFEST, Calibration, ExcludedImage, Manifest, OkImage
from gateway.store.ok_maps import OkMaps
from gateway.store.roi_key import RoiKey
from gateway.store.version_folder import read_file, read_verified, spatial_weights_of
from postprocess.roi_mask import ShapeError

_FILES_BESIDE_OK = 16


@dataclass(frozen=True, slots=True)
class Imported:
    """The result of an import."""

    key: RoiKey
    version: int
    n_images: int
    warnings: list[str]


def export_roi(store: ArtifactStore, key: RoiKey, target: Path, number: int | None = None) -> Contents:
    """Write one version with its OK images, calibration and audit trail, and the stored images of the ROI.

    Gateways may run at the same time.

    Args:
        store: the models folder.
        key: the ROI.
        target: a name that ends in ``.tar``, or a new folder.
        number: number of the version; None for the one in use.

    Returns:
        The contents of the archive.

    Raises:
        UnknownRoiError: the ROI was never fitted.
        UnknownVersionError: the version is not kept or is damaged.
        ArtifactCorruptError: an OK image, a stored image or the calibration is damaged.
        FileExistsError: the target exists.
        OSError: the target cannot be written.
    """
    ref = store.whole_version(key, store.current(key).number if number is None else number)
    manifest = store.manifest(key, ref)
    contents = Contents(
        **asdict(key),
        version=manifest.version,
        model_fingerprint=manifest.model_fingerprint,
        exported_at=datetime.now(UTC).isoformat(timespec="milliseconds"),
        files={},
    )
    return write_archive(target, contents, _files(store, key, manifest))


def _files(store: ArtifactStore, key: RoiKey, manifest: Manifest) -> Iterator[tuple[str, bytes]]:
    folder = store.version_folder(key, manifest.version)
    yield MANIFEST, read_file(folder / MANIFEST)
    for name in manifest.files:  # without the search: an import makes it from the bank
        yield name, read_verified(folder, manifest, name)
    if (calibration := store.calibration(key, manifest).calibration) is not None:
        yield CALIBRATION, calibration.to_bytes()
    if changes := store.audit.read(key, limit=2**31):
        yield AUDIT_COPY, b"".join(orjson.dumps(change) + b"\n" for change in reversed(changes))
    ok = store.ok(key)
    for image in (*manifest.images, *manifest.excluded):
        yield f"ok/{image.sha256}.{image.extension}", ok.image(image)
        tokens = ok.folder / f"{image.sha256}.npz"
        # The next fit computes missing, damaged or other tokens again: those of a version with other tiles.
        if ok.has_tokens(image.sha256, manifest.model_fingerprint, manifest.token_hw[0] * manifest.token_hw[1]):
            yield f"ok/{tokens.name}", tokens.read_bytes()
    yield from exported_images(store, key)


def import_roi(
    store: ArtifactStore,
    settings: Settings,
    source: Path,
    as_key: RoiKey | None = None,
    serves: Mapping[int | None, str] | None = None,
) -> Imported:
    """Import an exported version as a new version of its ROI, and put it in use in one step.

    The whole archive is checked before anything is written. An interrupted import leaves the ROI unchanged. A finished
    one can be rolled back if the ROI existed before.

    Args:
        store: the models folder; gateways may use it at the same time.
        settings: limits.
        source: tar or folder.
        as_key: name of the ROI here; None for the name in the archive.
        serves: fingerprints of the token models that are served here, by the input size that names each; None names
            the configured one. None if they are not known.

    Raises:
        ArchiveError: an export did not write the archive, or it exceeds a limit.
        GatewayError: an invalid id, a newer format, or a folder that cannot be written. The ROI is unchanged.
    """
    limits = Limits(
        files=2 * (settings.max_roi_images + settings.max_stored_images) + _FILES_BESIDE_OK,
        image_bytes=settings.max_image_bytes,
        file_bytes=settings.bank_cache_bytes,
    )
    with opened(source, limits) as archive:
        checked = _Checked.of(archive, settings)
        key = as_key or checked.manifest.key
        with acting(), store.lock(key, settings.fit_lock_timeout_s, creates=True):
            version, warnings = _put(store, key, archive, checked, settings)
    warnings += _mismatch(key, checked.manifest, serves or {})
    return Imported(key, version, len(checked.manifest.images), warnings)


def _mismatch(key: RoiKey, manifest: Manifest, serves: Mapping[int | None, str]) -> list[str]:
    """Warn of a version whose model is not the one that answers for its input size here."""
    fitted_with, size = manifest.model_fingerprint, manifest.input_size
    served = serves.get(size)
    is_unknown = served is None and None not in serves
    if not manifest.is_taught or served == fitted_with or is_unknown:
        return []
    sizes = sorted(each for each in serves if each is not None)
    here = f"no token model of input size {size}" if served is None else f"model {served[:16]}"
    until = "the next fit" if served is not None else f"a fit with another input_size ({', '.join(map(str, sizes))})"
    if same := [each for each in sizes if serves[each] == fitted_with]:
        until = f"a fit with input_size={same[0]}"
    return [
        f"{key} was fitted with model {fitted_with[:16]}, but this site serves {here}: it answers 409 until {until}; "
        "one OK image is enough"
    ]


@contextmanager
def acting() -> Iterator[None]:
    """Record this tool and its user as the actor in the audit trail."""
    with bound_contextvars(actor=f"scripts/artifacts, uid {os.getuid()}"):
        yield


@dataclass(frozen=True, slots=True, eq=False)
class _Checked:
    """The verified content of an archive."""

    manifest: Manifest
    detector: Detector
    weights: NDArray[np.float32] | None
    ok_maps: OkMaps | None
    calibration: Calibration | None
    stored: list[ImageRecord]

    @classmethod
    def of(cls, archive: Archive, settings: Settings) -> "_Checked":
        """Read the archive once.

        Raises:
            ArchiveError: names what is wrong.
        """
        names = archive.contents.files
        try:
            manifest = Manifest.from_bytes(archive.read(MANIFEST), MANIFEST)
            files = {name: archive.read(name) for name in manifest.files}
            if wrong := [name for name, sha256 in manifest.files.items() if names[name] != sha256]:
                raise ArchiveError(f"{wrong[0]} differs from the file that {MANIFEST} names")
            for name, data in files.items():
                if name.endswith(".npz"):
                    _require_plain(name, data)
            detector = load_detector(files, manifest)
            detector.check()
            weights = spatial_weights_of(files, manifest)
            ok_maps = None
            if LEAVE_ONE_OUT in files:
                ok_maps = _ok_maps(files[LEAVE_ONE_OUT], manifest, weights)
            calibration = None
            if CALIBRATION in names:
                calibration = Calibration.from_bytes(archive.read(CALIBRATION), CALIBRATION)
        except (DamagedError, KeyError, ValueError, ShapeError) as error:
            raise ArchiveError(f"not a whole version: {error}") from error
        n_images = len(manifest.images) + len(manifest.excluded)
        if n_images > settings.max_roi_images:
            raise ArchiveError(f"{n_images} OK images; at most {settings.max_roi_images} are accepted")
        for image in (*manifest.images, *manifest.excluded):
            _image(archive, image, settings)
            _tokens(archive, image, manifest)
        if AUDIT_COPY in names:
            archive.read(AUDIT_COPY)
        return cls(manifest, detector, weights, ok_maps, calibration, checked_images(archive, settings))


def _require_plain(name: str, data: bytes) -> None:
    """Refuse compressed arrays: a few bytes may expand to any size."""
    with zipfile.ZipFile(BytesIO(data)) as archive:
        if any(member.compress_type != zipfile.ZIP_STORED for member in archive.infolist()):
            raise ArchiveError(f"{name} is compressed; an export writes no such file")


def _ok_maps(data: bytes, manifest: Manifest, weights: NDArray[np.float32] | None) -> OkMaps:
    distances = read_npz(data)["distances"]
    expected = (len(manifest.images), manifest.token_hw[0] * manifest.token_hw[1])
    if distances.shape != expected or distances.dtype != np.float32:
        raise ArchiveError(f"{LEAVE_ONE_OUT}: {distances.dtype} {distances.shape}; expected float32 {expected}")
    frames = tuple(image.frame for image in manifest.images)
    return OkMaps(distances, manifest.token_hw, frames, weights, manifest.score_rule)


def _image(archive: Archive, image: OkImage, settings: Settings) -> bytes:
    name = f"ok/{image.sha256}.{image.extension}"
    if archive.contents.files.get(name) != image.sha256:
        raise ArchiveError(f"{name} is missing or is not the image that {MANIFEST} names")
    data = archive.read(name)
    try:
        header = read_header(data, name, ImageLimits(settings.max_image_bytes, settings.max_image_pixels))
    except GatewayError as error:
        raise ArchiveError(error.message) from error
    if header.upright_size != (image.width, image.height):
        raise ArchiveError(f"{name}: {header.upright_size}; the manifest says {(image.width, image.height)}")
    return data


def _tokens(archive: Archive, image: OkImage, manifest: Manifest) -> tuple[NDArray[np.float16], str] | None:
    """Return the tokens of an image, float16 [N, D], and what made them; None where the archive has none."""
    name = f"ok/{image.sha256}.npz"
    if name not in archive.contents.files:
        return None
    data = archive.read(name)
    try:
        _require_plain(name, data)
        arrays = unsealed_npz(data, name)
        tokens = arrays["tokens"]
        made_by = str(arrays["fingerprint"])
    except (DamagedError, KeyError, ValueError, zipfile.BadZipFile) as error:
        raise ArchiveError(f"{name}: {error}") from error
    expected = (manifest.token_hw[0] * manifest.token_hw[1], manifest.dim)
    if (
        tokens.shape != expected
        or tokens.dtype != np.float16
        or made_by.partition("/")[0] != manifest.model_fingerprint
    ):
        raise ArchiveError(f"{name} does not have the tokens of an image of this version")
    return tokens, made_by


def _put(
    store: ArtifactStore, key: RoiKey, archive: Archive, checked: _Checked, settings: Settings
) -> tuple[int, list[str]]:
    """Publish the checked content. The caller holds the lock.

    Returns:
        The number of the version, and warnings.
    """
    exported = checked.manifest
    latest = store.latest_manifest(key)
    before = None if latest is None else latest[0]
    number = max(exported.version, store.next_version(key))
    manifest = _renamed(exported, key, number, before)
    change = Change(
        action="import",
        version_before=None if before is None else before.version,
        version_after=number,
        threshold_before=None if before is None else store.threshold(key, before),
        threshold_after=None if checked.calibration is None else checked.calibration.threshold,
        n_ok_before=0 if before is None else len(before.images),
        n_ok_after=len(manifest.images),
    )
    with store.audit.change(key, change):
        ok = store.ok(key)
        for image in (*manifest.images, *manifest.excluded):
            ok.add_image(image, _image(archive, image, settings))
            tokens = _tokens(archive, image, exported)
            if tokens is not None:
                ok.add_tokens(image.sha256, tokens[1], tokens[0])
        calibration = checked.calibration
        if calibration is not None:
            # A calibration for this very bank is bound to the new number. A stale one stays stale.
            version = 0 if calibration.is_stale(exported) else number
            calibration = calibration.model_copy(update={"version": version})
        warnings = import_images(store, key, archive, checked.stored, settings)
        store.publish(key, manifest, checked.detector.files(), checked.weights, checked.ok_maps, calibration)
    return number, warnings


def _renamed(exported: Manifest, key: RoiKey, number: int, before: Manifest | None) -> Manifest:
    """Return the manifest as version `number` here. An image counts as added when this ROI first had it."""
    known = {} if before is None else {image.sha256: image.added_in for image in before.images}

    def added_in(image: OkImage) -> int:
        return image.added_in if before is None else known.get(image.sha256, number)

    images = [image.model_copy(update={"added_in": added_in(image)}) for image in exported.images]
    excluded: list[ExcludedImage] = [
        image.model_copy(update={"added_in": added_in(image), "excluded_in": number}) for image in exported.excluded
    ]
    names = {**asdict(key), "version": number, "files": {}, "search_sha256": None}
    return exported.model_copy(update={**names, "images": tuple(images), "excluded": tuple(excluded)})
