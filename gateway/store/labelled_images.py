"""The folder ``images/`` of an ROI: images with labels, kept until somebody deletes them.

``<id>.<extension>`` is an image as sent, ``<id>.json`` its record with the label, ``<id>.npz`` its tokens. The id is
the identity of the decoded pixels: two clients never write different images under one name. No file lists the others.
An image is stored once its record is there: the record is written last and removed first. A writer holds the lock of
the images (`ArtifactStore.image_lock`); a reader needs none.

A deleted image leaves a record with the label ``deleted``, so that the next fit removes it from the memory bank. The
record goes when no kept version names the image.
"""

import re
from collections.abc import Callable, Collection, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Literal

from pydantic import Field

from gateway.errors import ArtifactCorruptError
from gateway.store.checksummed import DamagedError, sha256_of
from gateway.store.manifest import OkImage
from gateway.store.place import Place
from gateway.store.sealed_model import SealedModel
from gateway.store.token_cache import TokenCache

Label = Literal["ok", "ng"]
LABELS: tuple[Label, ...] = ("ok", "ng")

_RECORD = re.compile(r"[0-9a-f]{64}\.json")
_FILE = re.compile(r"[0-9a-f]{64}\.[a-z]{1,8}")
_ID = re.compile(r"[0-9a-f]{64}")


class ImageRecord(SealedModel):
    """What is known of an image: the content of ``<id>.json``."""

    id: str = Field(pattern=r"^[0-9a-f]{64}$")
    """The identity of the decoded pixels, from `gateway.images.identity`."""
    file_sha256: str = Field(pattern=r"^[0-9a-f]{64}$")
    """SHA-256 of the file as sent."""
    label: Literal["ok", "ng", "deleted"]
    file_name: str
    """As sent. It names no file here."""
    extension: str = Field(pattern=r"^[a-z]{1,8}$")
    width: int
    height: int
    n_bytes: int
    bits: int | None = None
    """Bits of a sample in the file, 8 to 16."""
    bit_depth: int | None = None
    """Bits of a sample of the camera that the pixels were scaled by, or None for those of the file."""
    shape: str | None = None
    """Where the part is, as JSON."""
    metadata: str | None = None
    """JSON text as sent."""
    created_at: str | None = None
    """When the image was stored; None for an image that only a fit brought."""

    @property
    def is_there(self) -> bool:
        """Whether the image is stored, and not the trace of a deleted one."""
        return self.label != "deleted"


@dataclass(frozen=True, slots=True)
class Records:
    """The records of an ROI at one moment."""

    whole: tuple[ImageRecord, ...]
    """Sorted by time and id, with those of deleted images."""
    damaged: tuple[str, ...]
    """Ids whose record is damaged."""

    @property
    def stored(self) -> list[ImageRecord]:
        """The records of images that are stored."""
        return [record for record in self.whole if record.is_there]


class LabelledImages(TokenCache):
    """The stored images of one ROI. Every method blocks."""

    def records(self) -> Records:
        """Read all records.

        Raises:
            NewerFormatError: a newer gateway wrote one.
        """
        whole: list[ImageRecord] = []
        damaged: list[str] = []
        for path in self.folder.glob("*.json"):
            if _RECORD.fullmatch(path.name) is None:
                continue
            try:
                record = self._read(path.stem)
            except DamagedError:
                damaged.append(path.stem)
            else:
                if record is not None:
                    whole.append(record)
        whole.sort(key=lambda record: (record.created_at or "", record.id))
        return Records(tuple(whole), tuple(sorted(damaged)))

    def count(self) -> int:
        """Return the number of stored images, without reading a record."""
        beside = (".json", ".npz")
        names = (path.name for path in self.folder.glob("*"))
        return sum(_FILE.fullmatch(name) is not None and not name.endswith(beside) for name in names)

    def record(self, image_id: str) -> ImageRecord | None:
        """Return the record of an image, or None if there is none. The id may be any text.

        Raises:
            ArtifactCorruptError: the record is damaged.
        """
        try:
            return self._read(image_id) if _ID.fullmatch(image_id) else None
        except DamagedError as error:
            raise ArtifactCorruptError(
                f"{self._key}: {error}",
                f"Send the image again, or DELETE {self._key.url(f'/images/{image_id}')}.",
            ) from error

    def content(self, record: ImageRecord) -> bytes:
        """Return the bytes of an image as sent.

        Raises:
            FileNotFoundError: the image is not stored, or was deleted meanwhile.
            ArtifactCorruptError: the file is damaged.
        """
        try:
            data = self._image(record).read_bytes()
        except FileNotFoundError:
            now = self.record(record.id)
            if now is None or not now.is_there:
                raise
            what = "is missing"
        except OSError as error:
            what = f"cannot be read: {error.strerror or error}"
        else:
            if sha256_of(data) == record.file_sha256:
                return data
            what = "is damaged"
        self._faults.met(self._key, "stored_image", f"stored image {record.id} {what}")
        raise ArtifactCorruptError(
            f"{self._key}: stored image {record.id} ({record.file_name}) {what}",
            f"Send it again, or DELETE {self._key.url(f'/images/{record.id}')}.",
        )

    def is_whole(self, record: ImageRecord) -> bool:
        """Return whether the file of an image is there and undamaged."""
        try:
            return sha256_of(self._image(record).read_bytes()) == record.file_sha256
        except OSError:
            return False

    def add(self, new: Sequence[tuple[ImageRecord, Callable[[], bytes]]]) -> None:
        """Store images, all or none. The caller holds the lock of the images.

        If the process is killed in between, the next holder of the lock completes the write.

        Args:
            new: records, each with a callable that returns the bytes of the file.

        Raises:
            StorageFullError: nothing was stored.
        """
        if not new:
            return
        images = [(self._image(record), read) for record, read in new]
        records = [(self._record(record.id), record.to_bytes) for record, _ in new]
        self._storage.add(self._key, [*images, *records])

    def replace_record(self, record: ImageRecord) -> None:
        """Change the label or the metadata of an image. The caller holds the lock of the images.

        Raises:
            StorageFullError: nothing was changed.
        """
        self._storage.replace(self._key, self._record(record.id), record.to_bytes())

    def delete(self, record: ImageRecord) -> None:
        """Replace an image by the trace of a deleted one. The caller holds the lock of the images.

        Raises:
            StorageFullError: nothing was changed.
        """
        gone = {"label": "deleted", "metadata": None, "shape": None}
        with self._storage.batch(self._key):
            self.replace_record(record.model_copy(update=gone))
            self._remove_files(record.id)

    def forget(self, image_id: str) -> None:
        """Remove an image without a trace. The caller holds the lock of the images."""
        with self._storage.batch(self._key):
            self._storage.remove(self._key, self._record(image_id))
            self._remove_files(image_id)

    def forget_deleted(self, named: Callable[[ImageRecord], bool]) -> int:
        """Remove the traces of deleted images that no kept version names. The caller holds both locks of the ROI.

        Args:
            named: whether a kept version names the image of a record.

        Returns:
            The number of removed traces.
        """
        gone = [record for record in self.records().whole if not record.is_there and not named(record)]
        with self._storage.batch(self._key):
            for record in gone:
                self._storage.remove(self._key, self._record(record.id))
        return len(gone)

    def remove_orphans(self) -> int:
        """Remove files of an interrupted write or deletion. The caller holds the lock of the images.

        A file whose record is damaged is none of them.

        Returns:
            The number of removed files.
        """
        orphans = [p for p in self.folder.glob("*") if _FILE.fullmatch(p.name) and not self._is_recorded(p)]
        for path in orphans:
            self._storage.remove(self._key, path)
        return len(orphans)

    def _is_recorded(self, path: Place) -> bool:
        if path.suffix == ".json":
            return True
        try:
            record = self._read(path.stem)
        except DamagedError:
            return True
        return record is not None and record.is_there and path.suffix in (".npz", f".{record.extension}")

    def _read(self, image_id: str) -> ImageRecord | None:
        name = f"the record of stored image {image_id}"
        try:
            data = self._record(image_id).read_bytes()
        except FileNotFoundError:
            return None
        except OSError as error:
            raise DamagedError(f"{name} cannot be read: {error.strerror}") from error
        record = ImageRecord.from_bytes(data, name)
        if record.id != image_id:
            raise DamagedError(f"{name} is that of another image")
        return record

    def _remove_files(self, image_id: str) -> None:
        for path in list(self.folder.glob(f"{image_id}.*")):
            if path.suffix != ".json":
                with suppress(OSError):  # an orphan: the next start removes it
                    self._storage.remove(self._key, path)

    def _record(self, image_id: str) -> Place:
        return self.folder / f"{image_id}.json"

    def _image(self, record: ImageRecord) -> Place:
        return self.folder / f"{record.id}.{record.extension}"


def times(n: int) -> list[str]:
    """Return the present time for n records, UTC, a microsecond apart: the images of a request keep their order."""
    now = datetime.now(UTC)
    return [(now + timedelta(microseconds=i)).isoformat(timespec="microseconds") for i in range(n)]


class LabelsOfImages:
    """Which label the stored images give to the images of versions."""

    def __init__(self, records: Collection[ImageRecord]) -> None:
        self._by_id = {record.id: record for record in records}
        self._by_file = {record.file_sha256: record for record in records}

    def record_of(self, image: OkImage) -> ImageRecord | None:
        """Return the record of a version's image, or None if it is not stored."""
        by_pixels = self._by_id.get(image.pixels_sha256 or "")
        return by_pixels or self._by_file.get(image.sha256)

    def may_be_learned(self, image: OkImage) -> bool:
        """Return whether a bank may keep an image: it was neither relabelled NG nor deleted."""
        record = self.record_of(image)
        return record is None or record.label == "ok"
