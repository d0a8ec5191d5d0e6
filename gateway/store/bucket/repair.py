"""Write the pointer of an ROI anew, where it is damaged or missing, from the lists of files that are in the bucket.

A gateway does not do this by itself: it cannot know whether the newest list is the one that the pointer named. Lists
say which moves came before, so a list that others were made from is not the last one. Two last ones are left where a
writer was killed between its list and its move.
"""

import uuid
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime
from pathlib import PurePosixPath

from gateway.errors import NewerFormatError
from gateway.store.bucket.objects import Listed, Objects
from gateway.store.bucket.pointers import object_of, pointer_of
from gateway.store.bucket.roi_state import RoiFiles, RoiPointer, StoredFile
from gateway.store.checksummed import DamagedError, sha256_of
from gateway.store.roi_key import RoiKey

_READERS = 16
_LARGEST = 64 * 2**20
"""Of a list: it has some 150 bytes for each file."""


@dataclass(frozen=True, slots=True)
class FoundList:
    """A list of files in the bucket that no other list was made from. All its files are there."""

    name: str
    """Of its object."""
    written: datetime
    """By the clock of the bucket."""
    files: Mapping[str, StoredFile]
    moves: tuple[str, ...]
    """See `RoiFiles.moves`."""


def is_damaged(objects: Objects, key: RoiKey) -> bool:
    """Return whether the pointer of an ROI is missing, or it or its list cannot be read.

    Raises:
        StorageUnavailableError: the bucket does not answer.
    """
    try:
        pointer = RoiPointer.from_bytes(objects.get(pointer_of(key)).data, "the pointer")
        if pointer.files is not None:
            _read(objects, key, pointer.files)
    except (FileNotFoundError, DamagedError):
        return True
    return False


def last_lists(objects: Objects, key: RoiKey) -> list[FoundList]:
    """Return the lists that may be the last one of an ROI, newest first.

    Raises:
        StorageUnavailableError: the bucket does not answer.
    """
    listed = {PurePosixPath(each.path).name: each for each in objects.below(object_of(key, ""))}

    def found(each: Listed) -> FoundList | None:
        name = PurePosixPath(each.path).name
        with suppress(FileNotFoundError, DamagedError, NewerFormatError):
            content = _read(objects, key, name)
            if all(file.object in listed for file in content.files.values()):
                return FoundList(name, each.modified, content.files, content.moves)
        return None

    with ThreadPoolExecutor(_READERS) as pool:
        lists = [each for each in pool.map(found, (e for e in listed.values() if e.size <= _LARGEST)) if each]
    before = {move for each in lists for move in each.moves[:-1]}
    return sorted((each for each in lists if each.moves[-1] not in before), key=lambda each: each.written, reverse=True)


def point_to(objects: Objects, key: RoiKey, found: FoundList) -> None:
    """Make a list the one of an ROI, unless its pointer changes meanwhile.

    Raises:
        LostRaceError: it did.
        StorageFullError: the bucket accepts no writes.
        StorageUnavailableError: the bucket does not answer.
    """
    body = RoiPointer(files=found.name, move=uuid.uuid4().hex).to_bytes()
    try:
        tag = objects.get(pointer_of(key)).tag
    except FileNotFoundError:
        objects.create(pointer_of(key), body)
    else:
        objects.exchange(pointer_of(key), body, tag)


def _read(objects: Objects, key: RoiKey, name: str) -> RoiFiles:
    data = objects.get_large(object_of(key, name))
    if sha256_of(data) != name[:64]:
        raise DamagedError(f"{name} fails its checksum")
    return RoiFiles.from_bytes(data, name)
