"""The images of an ROI with their labels: stored by clients, or brought by a fit."""

import contextlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from gateway.errors import ArtifactCorruptError, UnknownImageError, UnknownRoiError
from gateway.images.decoding import Limits, decode_picture, read_header
from gateway.images.thumbnail import SIDE, thumbnail
from gateway.learning.suspects import find_suspects
from gateway.settings import Settings
from gateway.store.artifact_store import ArtifactStore
from gateway.store.audit import Action, Change
from gateway.store.labelled_images import ImageRecord, Label, LabelsOfImages, times
from gateway.store.manifest import Calibration, Manifest, OkImage
from gateway.store.roi_key import RoiKey


@dataclass(frozen=True, slots=True)
class RoiImage:
    """An image of an ROI, and what the version in use says of it."""

    record: ImageRecord
    """The stored record, or one with `created_at` None for an OK image that only a fit brought."""
    learned: bool = False
    """Whether the memory bank of the version in use has learned it."""
    excluded: bool = False
    """Whether an earlier fit excluded it as a suspect."""
    suspect: bool = False
    """Whether it is learned and looks unlike the other learned images."""
    score: float | None = None
    """Its score in the version in use, if known."""
    peak: float | None = None
    """Its peak, if known and if a region of the smallest area fits."""


@dataclass(frozen=True, slots=True)
class RoiImages:
    """All images of an ROI, oldest first."""

    images: list[RoiImage]
    damaged: tuple[str, ...]
    """Ids of stored images whose record is damaged."""


class StoredImages:
    """Lists, reads and changes the images of ROIs. Every method blocks."""

    def __init__(self, store: ArtifactStore, settings: Settings) -> None:
        self._store = store
        self._settings = settings
        self._limits = Limits(settings.max_image_bytes, settings.max_image_pixels)

    def all(self, key: RoiKey) -> RoiImages:
        """Return all images of an ROI.

        Raises:
            UnknownRoiError: the ROI was never fitted and has no stored images.
            NewerFormatError: a newer gateway wrote a record.
        """
        records = self._store.images(key).records()
        manifest = self._manifest(key)
        if manifest is None and not records.whole and not records.damaged:
            raise _no_images(key)
        marks = {} if manifest is None else self._marks(key, manifest)
        labels = LabelsOfImages(records.whole)
        brought = [] if manifest is None else self._only_brought(key, manifest, labels)
        stored = [_marked(record, marks) for record in records.stored]
        return RoiImages([*(_marked(record, marks) for record in brought), *stored], records.damaged)

    def record(self, key: RoiKey, image_id: str) -> ImageRecord:
        """Return what is known of one image.

        Raises:
            UnknownImageError: the ROI has no such image.
            ArtifactCorruptError: its record is damaged.
        """
        record = self._store.images(key).record(image_id)
        if record is None:
            record = self._brought(key, image_id)
        if record is None or not record.is_there:
            raise _unknown(key, image_id)
        return record

    def content(self, key: RoiKey, record: ImageRecord) -> bytes:
        """Return the bytes of an image as sent.

        Raises:
            UnknownImageError: it was deleted meanwhile.
            ArtifactCorruptError: the file is damaged.
        """
        if record.created_at is None:
            return self._store.ok(key).image(_ok_image(record))
        try:
            return self._store.images(key).content(record)
        except FileNotFoundError as error:
            raise _unknown(key, record.id) from error

    def thumbnail(self, key: RoiKey, record: ImageRecord, side: int = SIDE) -> bytes:
        """Return a JPEG of an image whose longest side has at most `side` pixels.

        Raises:
            UnknownImageError: it was deleted meanwhile.
            ArtifactCorruptError: the file is damaged.
        """
        data = self.content(key, record)
        header = read_header(data, record.file_name, self._limits)
        return thumbnail(decode_picture(data, record.file_name, header, record.bit_depth).pixels, side)

    def change(
        self, key: RoiKey, image_id: str, label: Label | None = None, metadata: Mapping[str, Any] | None = None
    ) -> RoiImage:
        """Change the label of an image, or replace its metadata. A bank follows at the next fit.

        An OK image that only a fit brought becomes a stored image.

        Raises:
            UnknownImageError: the ROI has no such image.
            StorageFullError: nothing was changed.
        """
        with self._changing(key):
            record = self.record(key, image_id)
            update: dict[str, Any] = {"label": label or record.label}
            if metadata is not None:
                update["metadata"] = json.dumps(metadata, ensure_ascii=False)
            changed = record.model_copy(update=update)
            if changed == record:
                return self._seen(key, record)
            with self._audited(key, "label_image", 1, changed.label, image_id):
                if record.created_at is None:
                    changed = changed.model_copy(update={"created_at": times(1)[0]})
                    self._store.images(key).add([(changed, lambda: self.content(key, record))])
                else:
                    self._store.images(key).replace_record(changed)
        return self._seen(key, changed)

    def delete(self, key: RoiKey, image_id: str, label: Label | None = None) -> None:
        """Delete an image. If a bank has learned it, the next fit removes it from there.

        Args:
            key: the ROI.
            image_id: id of the image.
            label: delete it only if it has this label.

        Raises:
            UnknownImageError: the ROI has no such image.
            StorageFullError: nothing was changed.
        """
        with self._changing(key):
            images = self._store.images(key)
            record: ImageRecord | None = None
            with contextlib.suppress(ArtifactCorruptError):
                record = self.record(key, image_id)
            if label is not None and record is not None and record.label != label:
                raise _unknown(key, image_id)
            with self._audited(key, "delete_images", 1, None, image_id):
                if record is None:
                    images.forget(image_id)
                else:
                    images.delete(record)

    def delete_all(self, key: RoiKey, label: Label, *, only_stored: bool = False) -> int:
        """Delete all images of an ROI with a label. Return their number.

        Args:
            key: the ROI.
            label: ok or ng.
            only_stored: leave the OK images that only a fit brought.

        Raises:
            UnknownRoiError: the ROI was never fitted and has no stored images.
            StorageFullError: the images that were deleted until then stay deleted.
        """
        with self._changing(key):
            records = [image.record for image in self.all(key).images if image.record.label == label]
            records = [record for record in records if record.created_at is not None or not only_stored]
            if records:
                with self._audited(key, "delete_images", len(records), None):
                    for record in records:
                        self._store.images(key).delete(record)
        return len(records)

    @contextlib.contextmanager
    def _changing(self, key: RoiKey) -> Iterator[None]:
        if not self._store.exists(key):
            raise _no_images(key)
        with self._store.image_lock(key, self._settings.fit_lock_timeout_s):
            yield

    def _audited(
        self, key: RoiKey, action: Action, n_images: int, label: str | None, image_id: str | None = None
    ) -> contextlib.AbstractContextManager[None]:
        return self._store.audit.change(key, change_of(self._store, key, action, n_images, label, image_id))

    def _seen(self, key: RoiKey, record: ImageRecord) -> RoiImage:
        manifest = self._manifest(key)
        return _marked(record, {} if manifest is None else self._marks(key, manifest))

    def _marks(self, key: RoiKey, manifest: Manifest) -> dict[str, dict[str, Any]]:
        calibration = None
        with contextlib.suppress(ArtifactCorruptError):
            calibration = self._store.calibration(key, manifest).calibration
        is_own = calibration is not None and not calibration.is_stale(manifest)
        return _marks(manifest, calibration if is_own else None)

    def _manifest(self, key: RoiKey) -> Manifest | None:
        try:
            return self._store.served_manifest(key)[0]
        except (UnknownRoiError, ArtifactCorruptError):
            return None  # the stored images of a damaged ROI can still be read

    def _brought(self, key: RoiKey, image_id: str) -> ImageRecord | None:
        """Return the record of an OK image that a fit brought."""
        manifest = self._manifest(key)
        if manifest is None or not manifest.is_taught:
            return None
        images = (*manifest.images, *manifest.excluded)
        found = (image for image in images if image_id == (image.pixels_sha256 or image.sha256))
        return next((self._record_of(key, manifest, image) for image in found), None)

    def _only_brought(self, key: RoiKey, manifest: Manifest, labels: LabelsOfImages) -> list[ImageRecord]:
        """Return records of the OK images that a fit brought and that are not stored."""
        if not manifest.is_taught:
            return []
        images = (*manifest.images, *manifest.excluded)
        return [self._record_of(key, manifest, image) for image in images if labels.record_of(image) is None]

    def _record_of(self, key: RoiKey, manifest: Manifest, image: OkImage) -> ImageRecord:
        return ImageRecord(
            id=image.pixels_sha256 or image.sha256,
            file_sha256=image.sha256,
            label="ok",
            file_name=image.file_name,
            extension=image.extension,
            width=image.width,
            height=image.height,
            n_bytes=self._store.ok(key).size(image),
            bits=image.bits,
            bit_depth=manifest.bit_depth,
            shape=image.shape,
        )


def _ok_image(record: ImageRecord) -> OkImage:
    return OkImage(
        sha256=record.file_sha256,
        file_name=record.file_name,
        extension=record.extension,
        width=record.width,
        height=record.height,
        added_in=0,
    )


def _marks(manifest: Manifest, calibration: Calibration | None) -> dict[str, dict[str, Any]]:
    """Return what a version says of images, by the ids of their pixels and of their files.

    Args:
        manifest: the version.
        calibration: a calibration that was made for it, or None.
    """
    suspects = {suspect.index for suspect in find_suspects(manifest.ok_scores)}
    n_images = len(manifest.images)
    scores = manifest.ok_scores or (None,) * n_images
    peaks = (() if calibration is None else calibration.learned_peaks) or (None,) * n_images
    stored = (*manifest.stored_scores, *(() if calibration is None else calibration.stored_scores))
    marks: dict[str, dict[str, Any]] = {each.id: {"score": each.score, "peak": each.peak} for each in stored}
    for i, (image, score, peak) in enumerate(zip(manifest.images, scores, peaks, strict=True)):
        told = {"learned": True, "suspect": i in suspects, "score": score, "peak": peak}
        marks |= {image.sha256: told, image.pixels_sha256 or image.sha256: told}
    for out in manifest.excluded:
        told = {"excluded": True, "score": out.score}
        marks |= {out.sha256: told, out.pixels_sha256 or out.sha256: told}
    return marks


def _marked(record: ImageRecord, marks: Mapping[str, dict[str, Any]]) -> RoiImage:
    return RoiImage(record, **(marks.get(record.id) or marks.get(record.file_sha256) or {}))


def change_of(
    store: ArtifactStore, key: RoiKey, action: Action, n_images: int, label: str | None, image_id: str | None = None
) -> Change:
    """Return the entry of the audit trail for a change of stored images. It changes no version."""
    version, threshold, n_ok = None, None, 0
    with contextlib.suppress(UnknownRoiError, ArtifactCorruptError):
        manifest, _ = store.served_manifest(key)
        version, n_ok, threshold = manifest.version, len(manifest.images), store.threshold(key, manifest)
    return Change(
        action=action,
        version_before=version,
        version_after=version,
        threshold_before=threshold,
        threshold_after=threshold,
        n_ok_before=n_ok,
        n_ok_after=n_ok,
        n_images=n_images,
        label=label,
        image=image_id,
    )


def _no_images(key: RoiKey) -> UnknownRoiError:
    return UnknownRoiError(
        f"{key} was never fitted and has no stored images",
        f"POST images to {key.url('/images')}, or OK images to /fit_ok. GET /rois lists the ROIs.",
    )


def _unknown(key: RoiKey, image_id: str) -> UnknownImageError:
    return UnknownImageError(f"{key} has no image {image_id[:80]}")
