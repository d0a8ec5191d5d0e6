"""List what a models folder holds, and check it for damage."""

from collections.abc import Iterator
from contextlib import suppress
from dataclasses import asdict, dataclass
from typing import Literal

from gateway.errors import ArtifactCorruptError, GatewayError, UnknownRoiError
from gateway.store.artifact_store import ArtifactStore
from gateway.store.checksummed import DamagedError
from gateway.store.manifest import CALIBRATION, Calibration, Manifest, OkImage
from gateway.store.roi_key import RoiKey
from gateway.store.version_folder import read_all_verified, read_manifest


@dataclass(frozen=True, slots=True)
class Listed:
    """One ROI of a models folder."""

    role_id: str
    roi_id: str
    recipe_id: str
    version: int
    """The version in use."""
    kept: tuple[int, ...]
    n_ok: int
    n_stored: int
    """Stored images, OK and NG."""
    n_embeddings: int
    calibration: Literal["none", "current", "stale", "damaged"]
    n_bytes: int
    """Size of all its files."""
    damaged: tuple[str, ...]
    """Damage found while listing. `verify` checks everything."""


def listed(store: ArtifactStore, key: RoiKey) -> Listed:
    """Read the manifest in use.

    Raises:
        GatewayError: never fitted, or nothing whole is stored.
    """
    manifest, damaged = store.served_manifest(key)
    calibration: Literal["none", "current", "stale", "damaged"]
    try:
        stored = store.calibration(key, manifest).calibration
        calibration = "none" if stored is None else "stale" if stored.is_stale(manifest) else "current"
    except ArtifactCorruptError:
        calibration = "damaged"
    return Listed(
        **asdict(key),
        version=manifest.version,
        kept=tuple(sorted(store.kept(key, store.current(key)))),
        n_ok=len(manifest.images),
        n_stored=len(store.images(key).records().stored),
        n_embeddings=manifest.n_embeddings,
        calibration=calibration,
        n_bytes=store.storage.n_bytes(key),
        damaged=tuple(damaged),
    )


def damages(store: ArtifactStore, key: RoiKey, *, tokens: bool = True) -> Iterator[str]:
    """Compare all files of all kept versions, and all images, with their checksums. Yield each damage.

    Missing tokens are no damage: a copy, an archive and another gateway have none until the next fit.

    Args:
        store: all ROIs.
        key: the ROI.
        tokens: whether damaged tokens of OK images count.

    Raises:
        UnknownRoiError: the ROI was never fitted and has no stored images.
        NewerFormatError: a newer gateway wrote it.
    """
    try:
        ref = store.current(key)
    except ArtifactCorruptError as error:
        yield _short(key, error)
        with suppress(ArtifactCorruptError):  # the pointer of a bucket, which names the images as well
            yield from _image_damages(store, key)
        return
    except UnknownRoiError:
        if not store.exists(key):
            raise
        yield from _image_damages(store, key)  # stored images of an ROI that was never fitted
        return
    if ref.damaged:
        yield ref.damaged
    images: dict[str, OkImage] = {}
    for number, sha256 in sorted(store.kept(key, ref).items()):
        folder = store.version_folder(key, number)
        try:
            manifest = read_manifest(folder, sha256)
        except DamagedError as error:
            yield f"version {number}: {error}"
            continue
        images |= {image.sha256: image for image in (*manifest.images, *manifest.excluded)}
        try:
            read_all_verified(folder, manifest)
        except DamagedError as error:
            yield f"version {number}: {error}"
        yield from _calibration_damages(store, key, manifest, in_use=number == ref.number)
    ok = store.ok(key)
    for image in images.values():
        try:
            ok.image(image)
        except GatewayError as error:
            yield _short(key, error)
        try:
            if tokens:
                ok.require_whole_tokens(image.sha256)
        except DamagedError as error:
            yield f"tokens of an OK image are damaged, and the next fit computes them again: {error}"
    yield from _image_damages(store, key)


def _image_damages(store: ArtifactStore, key: RoiKey) -> Iterator[str]:
    """Yield the damage of stored images and their records."""
    images = store.images(key)
    found = images.records()
    for image_id in found.damaged:
        yield f"the record of stored image {image_id} is damaged"
    for record in found.stored:
        try:
            images.content(record)
        except FileNotFoundError:
            continue  # deleted meanwhile
        except GatewayError as error:
            yield _short(key, error)


def _calibration_damages(store: ArtifactStore, key: RoiKey, manifest: Manifest, *, in_use: bool) -> Iterator[str]:
    """Yield the damage of a version's calibration; for the version in use also that of the ROI's copy."""
    try:
        if in_use:
            if (stored := store.calibration(key, manifest)).damaged:
                yield stored.damaged
            return
        Calibration.from_bytes((store.version_folder(key, manifest.version) / CALIBRATION).read_bytes(), CALIBRATION)
    except FileNotFoundError:
        return  # never calibrated
    except ArtifactCorruptError as error:
        yield _short(key, error)
    except (DamagedError, OSError) as error:
        yield f"version {manifest.version}: {error}"


def _short(key: RoiKey, error: GatewayError) -> str:
    """Return the message without the name of the ROI, which the caller knows."""
    return error.message.removeprefix(f"{key}: ")
