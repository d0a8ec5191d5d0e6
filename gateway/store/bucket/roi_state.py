"""What an ROI has in a bucket: its pointer, and the list of its files that the pointer names."""

import uuid
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

from gateway.store.bucket.objects import Tag
from gateway.store.checksummed import sha256_of
from gateway.store.place import STORED_IMAGES, Part
from gateway.store.sealed_model import SealedModel

ObjectName = Annotated[str, Field(pattern=r"^[0-9a-f]{64}\.[0-9a-f]{8}$")]
"""``<sha256>.<8 digits>``. Its first part names a file of the cache, so it is checked like any input."""
FileName = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*(/[A-Za-z0-9][A-Za-z0-9._-]*)*$")]
"""Name of a file of an ROI, with slashes between folders."""


class StoredFile(BaseModel):
    """The object with the content of a file."""

    model_config = ConfigDict(frozen=True)

    object: ObjectName
    size: int

    @property
    def sha256(self) -> str:
        """SHA-256 of the content."""
        return self.object[:64]


class RoiFiles(SealedModel):
    """The list of the files of an ROI, by name."""

    files: dict[FileName, StoredFile]
    dropped: dict[ObjectName, float] = Field(default_factory=dict)
    """Objects that a change took off the list, with the time in seconds since 1970. Somebody may still read them."""
    moves: tuple[str, ...]
    """The last moves of the pointer, the one to this list last."""


class RoiPointer(SealedModel):
    """The pointer of an ROI."""

    files: ObjectName | None
    """The object with the list; None for a deleted ROI."""
    move: str
    """A random id of the move, so that no two pointers have the same content."""


@dataclass(frozen=True, slots=True)
class RoiState:
    """The files of an ROI at one moment."""

    tag: Tag | None = None
    """Of the pointer; None where there is none."""
    files: Mapping[str, StoredFile] = field(default_factory=dict)
    dropped: Mapping[str, float] = field(default_factory=dict)
    """See `RoiFiles.dropped`."""
    moves: tuple[str, ...] = ()
    """See `RoiFiles.moves`."""
    list_object: str | None = None
    """The object with the list; None where there is none, or for a deleted ROI."""

    def part(self, part: Part) -> dict[str, StoredFile]:
        """Return the files of a part of the ROI."""
        images = f"{STORED_IMAGES}/"
        return {name: file for name, file in self.files.items() if name.startswith(images) == (part == "images")}


def new_object(data: bytes) -> str:
    """Return the name of a new object with a content."""
    return f"{sha256_of(data)}.{uuid.uuid4().hex[:8]}"
