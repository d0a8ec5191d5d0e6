"""Store images with a label: checked as for a fit, but neither tokenised nor learned."""

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass

from anyio import CapacityLimiter

from gateway.errors import ArtifactCorruptError, GatewayError, ImageConflictError, TooLargeError, UnknownRoiError
from gateway.images.decoding import Limits, decode_picture, read_header, to_model_input
from gateway.images.identity import pixel_digest
from gateway.images.masks import mask_of
from gateway.learning.content_checks import Findings, require_content
from gateway.learning.request import ImageFile
from gateway.learning.stored_images import change_of
from gateway.networks import TokenEngine
from gateway.settings import Settings
from gateway.store.artifact_store import ArtifactStore
from gateway.store.checksummed import sha256_of
from gateway.store.labelled_images import ImageRecord, Label, LabelsOfImages, Records, times
from gateway.store.manifest import Manifest
from gateway.store.roi_key import RoiKey
from gateway.worker_threads import in_thread
from postprocess.roi_mask import Shape


@dataclass(frozen=True, slots=True)
class StoreRequest:
    """Images to store with one label."""

    key: RoiKey
    label: Label
    images: Sequence[ImageFile]
    metadata: Sequence[str | None]
    """JSON text of each image, or None."""
    shape: Shape | None = None
    """Where the part is in all images; None takes that of each file."""
    shape_json: str | None = None
    bit_depth: int | None = None
    """Bits of a sample of the camera, 8 to 16; None takes that of the ROI."""


@dataclass(frozen=True, slots=True)
class StoreResult:
    """What became of the images of a request."""

    images: list[tuple[ImageRecord, bool]]
    """For each file of the request, the record of its picture, and whether the request added it."""
    n_ok: int
    """Stored OK images afterwards."""
    n_ng: int
    warnings: list[str]


class ImageStorer:
    """Stores images in worker threads of its own."""

    def __init__(self, engine: TokenEngine, store: ArtifactStore, settings: Settings) -> None:
        self._engine = engine
        self._store = store
        self._settings = settings
        self._limits = Limits(settings.max_image_bytes, settings.max_image_pixels)
        self._decoders = CapacityLimiter(2)
        self._writers = CapacityLimiter(16)

    async def add(self, request: StoreRequest) -> StoreResult:
        """Check images and store them, all or none.

        Raises:
            InvalidRequestError: an image shows nothing, its values exceed the bit depth, or a new ROI may not have its
                name.
            UnsupportedImageError: a file is no image that is served.
            ImageConflictError: a picture is stored, or learned, with the other label.
            TooLargeError: the ROI would have too many stored images, or too many bytes of them.
            StorageFullError: nothing was stored.
        """
        findings = Findings()
        manifest = await in_thread(self._manifest, request.key, limiter=self._decoders)
        bit_depth = request.bit_depth
        if bit_depth is None and manifest is not None:
            bit_depth = manifest.bit_depth
        records = [
            await in_thread(self._checked, request, file, metadata, bit_depth, findings, limiter=self._decoders)
            for file, metadata in zip(request.images, request.metadata, strict=True)
        ]
        learned = [] if manifest is None else [*manifest.images, *manifest.excluded]
        warnings = findings.warnings(learned, bit_depth)
        return await in_thread(self._add, request, records, warnings, limiter=self._writers)

    def _manifest(self, key: RoiKey) -> Manifest | None:
        with suppress(UnknownRoiError, ArtifactCorruptError):
            return self._store.served_manifest(key)[0]
        return None

    def _checked(
        self,
        request: StoreRequest,
        file: ImageFile,
        metadata: str | None,
        bit_depth: int | None,
        findings: Findings,
    ) -> ImageRecord:
        data = file.read()
        header = read_header(data, file.name, self._limits)
        shape, shape_json = request.shape, request.shape_json
        if shape_json is None:
            shape, shape_json = file.shape, file.shape_json
        if shape is not None:
            mask_of(shape, header.upright_size)
        picture = decode_picture(data, file.name, header, bit_depth)
        size = self._input_size()
        network_input = None if size is None else to_model_input(picture.pixels, size)
        require_content(file.name, picture, network_input, done="stored")
        findings.note(file.name, picture)
        return ImageRecord(
            id=pixel_digest(picture.pixels),
            file_sha256=sha256_of(data),
            label=request.label,
            file_name=file.name[:255],
            extension=header.extension,
            width=header.upright_size[0],
            height=header.upright_size[1],
            n_bytes=len(data),
            bits=picture.samples.bits,
            bit_depth=bit_depth,
            shape=shape_json,
            metadata=metadata,
        )

    def _input_size(self) -> int | None:
        """Return the side of the network's input in pixels; None while the engine has not answered yet."""
        with suppress(GatewayError):
            return self._engine.model.input_size
        return None

    def _add(self, request: StoreRequest, records: list[ImageRecord], warnings: list[str]) -> StoreResult:
        """Store what is new. Blocks."""
        key, label = request.key, request.label
        with self._store.image_lock(key, self._settings.fit_lock_timeout_s, creates=True):
            images = self._store.images(key)
            before = images.records()
            known = {record.id: record for record in before.stored}
            self._require_one_label(request, records, known, before)
            new: dict[str, tuple[ImageRecord, ImageFile]] = {}
            found: list[tuple[ImageRecord, bool]] = []
            for record, file, time in zip(records, request.images, times(len(records)), strict=True):
                is_new = record.id not in known and record.id not in new
                if is_new:
                    new[record.id] = record.model_copy(update={"created_at": time}), file
                elif record.id in known and not images.is_whole(known[record.id]):
                    # Damaged or missing: the file that was sent takes its place.
                    kept = known[record.id]
                    taken = {name: getattr(record, name) for name in ("file_sha256", "extension", "n_bytes", "bits")}
                    new[record.id] = kept.model_copy(update=taken), file
                found.append((new[record.id][0] if record.id in new else known[record.id], is_new))
            added = [record for record, is_new in found if is_new]
            self._require_room(key, before, added)
            if new:
                with self._store.audit.change(key, change_of(self._store, key, "store_images", len(added), label)):
                    images.add([(record, file.read) for record, file in new.values()])
        labels = [record.label for record in (*before.stored, *added)]
        return StoreResult(found, labels.count("ok"), labels.count("ng"), warnings)

    def _require_one_label(
        self,
        request: StoreRequest,
        records: Sequence[ImageRecord],
        known: dict[str, ImageRecord],
        before: Records,
    ) -> None:
        other: Label = "ng" if request.label == "ok" else "ok"
        learned: set[str | None] = set()
        manifest = self._manifest(request.key) if request.label == "ng" else None
        if manifest is not None:
            labels = LabelsOfImages(before.whole)
            images = [image for image in (*manifest.images, *manifest.excluded) if labels.record_of(image) is None]
            learned = {image.pixels_sha256 for image in images} | {image.sha256 for image in images}
        for record in records:
            stored = known.get(record.id)
            if stored is not None and stored.label == other:
                said = f"is stored with the label {other}, as {stored.file_name}"
            elif record.id in learned or record.file_sha256 in learned:
                said = "is learned as an OK image"
            else:
                continue
            raise ImageConflictError(
                f"images: {record.file_name} {said}; no image of this request was stored",
                f"If it is {request.label.upper()}, PATCH {request.key.url(f'/images/{record.id}')} with "
                f'{{"label": "{request.label}"}}; else leave it out.',
            )

    def _require_room(self, key: RoiKey, before: Records, added: Sequence[ImageRecord]) -> None:
        settings = self._settings
        n_images = len(before.stored) + len(added)
        if added and n_images > settings.max_stored_images:
            raise TooLargeError(
                f"{key} would have {n_images} stored images; the limit is {settings.max_stored_images}",
                "Delete stored images that are not needed, or raise GATEWAY_MAX_STORED_IMAGES.",
            )
        n_bytes = sum(record.n_bytes for record in (*before.stored, *added))
        if added and n_bytes > settings.max_stored_bytes:
            raise TooLargeError(
                f"the stored images of {key} would take {n_bytes} bytes; the limit is {settings.max_stored_bytes}",
                "Delete stored images that are not needed, or raise GATEWAY_MAX_STORED_BYTES.",
            )
