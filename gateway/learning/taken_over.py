"""What a fit does with the images of its request: which it learns, and what it stores of them."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

from gateway.detectors.memory_bank.token_file import TokenFile
from gateway.errors import ImageConflictError, InvalidRequestError
from gateway.images.tiling import Tiling
from gateway.learning.intake import NewImage, Received, token_key
from gateway.learning.request import FitRequest, ImageFile
from gateway.monitoring.timing import StageTimes
from gateway.networks.model_description import ModelDescription
from gateway.store.artifact_store import ArtifactStore
from gateway.store.labelled_images import ImageRecord, LabelsOfImages
from gateway.store.manifest import Manifest, OkImage
from gateway.store.ok_images import OkFiles
from gateway.store.roi_key import RoiKey
from postprocess.roi_mask import parse_shape


@dataclass(frozen=True, slots=True)
class PreparedFit:
    """A fit whose images are checked and tokenised."""

    request: FitRequest
    model: ModelDescription
    bit_depth: int | None
    """Bits of a sample of the camera, or None for those of the files."""
    tiling: Tiling
    """How images are cut."""
    identified: Mapping[str, OkImage]
    """Stored images whose identity was found for this fit, by their SHA-256."""
    received: Received
    tokens: TokenFile
    times: StageTimes


def stored_files(store: ArtifactStore, key: RoiKey) -> list[ImageFile]:
    """Return the stored OK images of an ROI as the files of a fit. Blocks.

    Raises:
        InvalidRequestError: no image of the ROI was ever stored, so the client has probably forgotten its files.
    """
    images = store.images(key)
    records = images.records().whole
    if not records:
        raise InvalidRequestError(f"images: missing; none was sent, and {key} has no stored images", _send_images(key))

    def file_of(record: ImageRecord) -> ImageFile:
        shape = None if record.shape is None else parse_shape(record.shape)[0]
        return ImageFile(record.file_name, lambda: images.content(record), shape, record.shape)

    return [file_of(record) for record in records if record.label == "ok"]


def n_of_stored_fit(store: ArtifactStore, key: RoiKey, before: Manifest | None) -> int:
    """Return how many images a fit of the stored OK images would learn: them, and the learned ones that are not stored.

    Raises:
        InvalidRequestError: as in `stored_files`.
    """
    n_stored = len(stored_files(store, key))
    labels = LabelsOfImages(store.images(key).records().whole)
    return n_stored + sum(labels.record_of(image) is None for image in (() if before is None else before.images))


class StoredLabels:
    """What the stored labels mean for a fit. Read it under the lock of the ROI."""

    def __init__(self, store: ArtifactStore, key: RoiKey) -> None:
        self._key = key
        found = store.images(key).records()
        self._labels = LabelsOfImages(found.whole)
        self._sent_again: set[str] = set()
        self.warnings = [
            f"damaged: the record of stored image {image_id}; its label is unknown: send the image again"
            for image_id in found.damaged
        ]

    def learnable(self, request: FitRequest, received: Sequence[NewImage]) -> list[NewImage]:
        """Return the images that a fit may learn: those of its request, or the stored ones that are still OK.

        Raises:
            ImageConflictError: the request has an image whose stored label is NG.
        """
        found = [(n, self._labels.record_of(n.image)) for n in received]
        if request.stored:
            return [n for n, record in found if record is not None and record.label == "ok"]
        for n, record in found:
            if record is not None and record.label == "ng":
                raise ImageConflictError(
                    f"images: {n.file.name} is stored with the label ng, as {record.file_name}; no image of this "
                    "request was learned",
                    f'If it is OK, PATCH {self._key.url(f"/images/{record.id}")} with {{"label": "ok"}}; else leave it '
                    "out.",
                )
        self._sent_again = {record.id for _, record in found if record is not None and not record.is_there}
        return list(received)

    def forget_sent_again(self, store: ArtifactStore, timeout_s: float) -> None:
        """Remove the traces of deleted images that the request has sent again.

        This is done before the fit is published: otherwise, the next fit would remove an image that was acknowledged.
        """
        if self._sent_again:
            with store.image_lock(self._key, timeout_s):
                images = store.images(self._key)
                for image_id in self._sent_again:
                    record = images.record(image_id)
                    if record is not None and not record.is_there:
                        images.forget(image_id)

    def forget(self, store: ArtifactStore, image: OkImage, timeout_s: float) -> None:
        """Remove the stored OK image that a version's image is, so that no later fit learns it again."""
        record = self._labels.record_of(image)
        if record is not None and record.label == "ok":
            with store.image_lock(self._key, timeout_s):
                store.images(self._key).forget(record.id)

    def kept(self, before: Manifest) -> Manifest:
        """Return a version without the images that were relabelled NG or deleted."""
        return before.model_copy(
            update={
                "images": tuple(image for image in before.images if self._is_kept(image)),
                "excluded": tuple(image for image in before.excluded if self._is_kept(image)),
            }
        )

    def _is_kept(self, image: OkImage) -> bool:
        record = self._labels.record_of(image)
        return record is None or record.label == "ok" or record.id in self._sent_again


def require_any(key: RoiKey, images: Collection[object]) -> None:
    """Refuse a fit that would learn nothing.

    Raises:
        InvalidRequestError: there is no OK image.
    """
    if not images:
        raise InvalidRequestError(
            f"images: {key} has no OK image to learn: none was sent, and none is stored with the label ok",
            _send_images(key),
        )


def _send_images(key: RoiKey) -> str:
    return f"Send OK images as parts named 'images', or store them with POST {key.url('/images')} first."


def store_added(ok: OkFiles, fit: PreparedFit, added: Sequence[NewImage]) -> set[str]:
    """Store the new images of a fit with their tokens.

    Returns:
        The SHA-256 of stored images that were deleted meanwhile. They cannot be learned.

    Raises:
        StorageFullError: a file cannot be written.
    """
    gone = set()
    for n in added:
        try:
            ok.add_image(n.image, n.file.read())
        except FileNotFoundError:
            gone.add(n.image.sha256)
        else:
            _add_tokens(ok, n.image, n, fit)
    return gone


def mended(ok: OkFiles, known: OkImage, again: NewImage, fit: PreparedFit) -> OkImage:
    """Return a known image that was sent again; its stored file is replaced where it is damaged or missing.

    Raises:
        StorageFullError: a file cannot be written.
    """
    if known.pixels_sha256 is None:
        # Known by its file, which could not be read when images were identified.
        identity = {"pixels_sha256": again.image.pixels_sha256, "bits": again.image.bits}
        known = known.model_copy(update=identity)
    try:
        data = again.file.read()
    except FileNotFoundError:  # a stored image that was deleted meanwhile; the next fit removes it
        return known
    if again.image.sha256 == known.sha256:
        ok.mend_image(known, data)
    elif not ok.is_whole(known):
        # The same picture in other bytes: from now on, this file is the stored one.
        taken = {name: getattr(again.image, name) for name in ("sha256", "extension", "file_name", "bits")}
        known = known.model_copy(update=taken)
        ok.add_image(known, data)
    _add_tokens(ok, known, again, fit)
    return known


def _add_tokens(ok: OkFiles, image: OkImage, new: NewImage, fit: PreparedFit) -> None:
    if not new.has_stored_tokens:
        tokens = fit.tokens.images([new.place]).image(0)
        ok.add_tokens(image.sha256, token_key(fit.model, image, fit.bit_depth, fit.tiling), tokens)


def with_new_shape(learned: Sequence[OkImage], again: Mapping[str, OkImage], shape_json: str | None) -> list[OkImage]:
    """Return the learned images; those that were sent again with a shape have the new shape.

    Args:
        learned: the images of the version before.
        again: the images that were sent again, by their SHA-256 in that version.
        shape_json: shape of the request.
    """
    update = {} if shape_json is None else {"shape": shape_json}
    return [again[i.sha256].model_copy(update=update) if i.sha256 in again else i for i in learned]
