"""The stored images of an ROI in an archive."""

import json
from collections.abc import Callable, Iterator

from artifacts.archive import Archive, ArchiveError
from gateway.errors import GatewayError
from gateway.images.decoding import Limits, decode_picture, read_header
from gateway.images.identity import pixel_digest
from gateway.settings import Settings
from gateway.store.artifact_store import ArtifactStore
from gateway.store.checksummed import DamagedError
from gateway.store.labelled_images import ImageRecord
from gateway.store.roi_key import RoiKey
from postprocess.roi_mask import ShapeError, parse_shape

_FOLDER = "images/"
_MAX_CHARS = 65_536
"""Limit of a file name and of the metadata."""


def exported_images(store: ArtifactStore, key: RoiKey) -> Iterator[tuple[str, bytes]]:
    """Yield the names and bytes of the stored images of an ROI and of their records.

    Raises:
        ArtifactCorruptError: an image or a record is damaged.
    """
    images = store.images(key)
    found = images.records()
    for image_id in found.damaged:
        images.record(image_id)  # raises, with the remedy
    for record in found.whole:
        if record.is_there:
            try:
                data = images.content(record)
            except FileNotFoundError:
                continue  # deleted meanwhile
            yield f"{_FOLDER}{record.id}.{record.extension}", data
        yield f"{_FOLDER}{record.id}.json", record.to_bytes()


def checked_images(archive: Archive, settings: Settings) -> list[ImageRecord]:
    """Return the records in an archive, after everything about them was verified.

    Raises:
        ArchiveError: names what is wrong.
    """
    names = {name for name in archive.contents.files if name.startswith(_FOLDER)}
    records = []
    for name in sorted(name for name in names if name.endswith(".json")):
        record = _record(archive, name)
        names.remove(name)
        if record.is_there:
            names.discard(_require_image(archive, record, settings))
        records.append(record)
    if names:
        raise ArchiveError(f"{min(names)} has no record")
    if len(records) > settings.max_stored_images:
        raise ArchiveError(f"{len(records)} stored images; at most {settings.max_stored_images} are accepted")
    return records


def import_images(
    store: ArtifactStore, key: RoiKey, archive: Archive, records: list[ImageRecord], settings: Settings
) -> list[str]:
    """Store the images of an archive that this ROI has not got. Its own labels stay. Return warnings.

    Raises:
        StorageFullError: nothing was stored.
    """
    if not records:
        return []
    with store.image_lock(key, settings.fit_lock_timeout_s):
        images = store.images(key)
        here = {record.id: record for record in images.records().whole}
        new = [r for r in records if r.id not in here or (r.is_there and not here[r.id].is_there)]
        images.add([(record, _reader(archive, record)) for record in new if record.is_there])
        for record in new:
            if not record.is_there:
                images.replace_record(record)
    kept = [r for r in records if r.id in here and here[r.id].is_there and here[r.id].label != r.label]
    if not kept:
        return []
    return [
        f"{len(kept)} stored images have another label here, which stays: {here[kept[0].id].file_name} is the first"
    ]


def _reader(archive: Archive, record: ImageRecord) -> Callable[[], bytes]:
    return lambda: archive.read(f"{_FOLDER}{record.id}.{record.extension}")


def _record(archive: Archive, name: str) -> ImageRecord:
    try:
        record = ImageRecord.from_bytes(archive.read(name), name)
        if record.shape is not None:
            parse_shape(record.shape)
        if record.metadata is not None:
            json.loads(record.metadata)
    except (DamagedError, ShapeError, ValueError, RecursionError) as error:
        raise ArchiveError(f"{name}: {error}") from error
    if name != f"{_FOLDER}{record.id}.json":
        raise ArchiveError(f"{name} is the record of another image")
    if len(record.file_name) + len(record.metadata or "") > _MAX_CHARS:
        raise ArchiveError(f"{name}: more than {_MAX_CHARS} characters")
    return record


def _require_image(archive: Archive, record: ImageRecord, settings: Settings) -> str:
    name = f"{_FOLDER}{record.id}.{record.extension}"
    if archive.contents.files.get(name) != record.file_sha256:
        raise ArchiveError(f"{name} is missing or is not the image that its record names")
    data = archive.read(name)
    try:
        header = read_header(data, name, Limits(settings.max_image_bytes, settings.max_image_pixels))
        picture = decode_picture(data, name, header, record.bit_depth)
    except GatewayError as error:
        raise ArchiveError(error.message) from error
    told = (record.id, record.extension, (record.width, record.height), record.n_bytes)
    if (pixel_digest(picture.pixels), header.extension, header.upright_size, len(data)) != told:
        raise ArchiveError(f"{name} is not what its record says")
    return name
