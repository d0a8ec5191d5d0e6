"""Where the store keeps the files of ROIs: a folder, or a bucket of an object store.

`Storage` is the protocol. `FolderStorage` is the models folder, `BucketStorage` a bucket. Everything above them is the
same for both: which files a version has, how they are checked, which version answers, what an audit entry says.

A file of an ROI has the same name in both, such as ``versions/3/memory.npz``. It is read through a `Place`, of which
`pathlib.Path` is one. It is changed by the methods of `Storage`, inside `Storage.lock`:

- In a folder, a lock file excludes other writers, and each change takes effect at once: a rename makes a new version,
  or a new ``current``, visible as a whole.
- In a bucket nothing is locked. One small pointer object names the list of an ROI's files, and a conditional PUT moves
  it. The changes of a `Storage.batch` take effect together, by one move. `Storage.lock` remembers the files that the
  writer has seen; if another writer changed one of them meanwhile, the move is refused with 429, and nothing changes.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Literal, Protocol

from gateway.store.roi_key import RoiKey

Part = Literal["learned", "images"]
"""What a writer changes: what an ROI has learned, or its stored images, in the folder ``images``."""

STORED_IMAGES = "images"


class UnsuitableStorageError(Exception):
    """A bucket that cannot be used. The message names it."""


class Place(Protocol):
    """A file or folder of an ROI, to be read. It has the methods of `pathlib.Path` that the store uses."""

    @property
    def name(self) -> str:
        """The last part of the name."""

    @property
    def stem(self) -> str:
        """The last part of the name, without what follows its last dot."""

    @property
    def suffix(self) -> str:
        """What follows the last dot of the name, with the dot."""

    def __truediv__(self, name: str, /) -> "Place":
        """Return a file or folder in this folder."""

    def read_bytes(self) -> bytes:
        """Return the content of a file.

        Raises:
            OSError: it is missing or cannot be read.
            StorageUnavailableError: the bucket does not answer.
        """

    def exists(self) -> bool:
        """Return whether there is such a file or folder."""

    def is_dir(self) -> bool:
        """Return whether there is such a folder."""

    def glob(self, pattern: str, /) -> "Iterable[Place]":
        """Return the files and folders in this folder whose name matches, in any order."""


@dataclass(frozen=True, slots=True)
class StorageProblem:
    """Why what is known of an ROI may be old."""

    kind: Literal["pointer", "storage"]
    """The pointer of the ROI is damaged, or the storage does not answer."""
    what: str


@dataclass(frozen=True, slots=True)
class DiskSpace:
    """Space of the disk of a models folder, in bytes."""

    free: int
    size: int


class Storage(Protocol):
    """The place of all ROIs. Every method blocks and is thread-safe.

    Methods that change raise `StorageFullError` where it accepts no writes, and `StorageUnavailableError` where it does
    not answer. Nothing was changed then.
    """

    @property
    def what(self) -> str:
        """Its name in messages."""

    def prepare(self) -> None:
        """Check once that it does what the store rests on, if it answers.

        Raises:
            UnsuitableStorageError: it does not.
        """

    def keys(self) -> Iterable[RoiKey]:
        """Return all ROIs that have files or are being made, in any order."""

    def folder(self, key: RoiKey) -> Place:
        """Return the folder of an ROI."""

    def problem(self, key: RoiKey) -> StorageProblem | None:
        """Return why what is read of an ROI may be old, or None."""

    def lock(self, key: RoiKey, part: Part, timeout_s: float) -> AbstractContextManager[None]:
        """Exclude other writers of a part of an ROI, or notice them. The writer stays in this thread.

        Raises:
            OverloadedError: another writer was at work for `timeout_s`.
        """

    def is_in_use(self, key: RoiKey) -> bool:
        """Return whether a writer is at work on an ROI, as far as can be known."""

    def claim(self, key: RoiKey, timeout_s: float, check: Callable[[], None]) -> None:
        """Make the folder of an ROI. The caller holds a lock of it.

        Args:
            key: the ROI.
            timeout_s: longest time to wait for other new ROIs.
            check: raises if the ROI may not have its name. Of two new ROIs at the same time, one sees the other.
        """

    def batch(self, key: RoiKey) -> AbstractContextManager[None]:
        """Let the changes of an ROI inside the block take effect together, where the storage can do that."""

    def replace(self, key: RoiKey, place: Place, data: bytes) -> None:
        """Write a file: a reader sees the old content or the new content, both complete."""

    def add(self, key: RoiKey, files: Sequence[tuple[Place, Callable[[], bytes]]]) -> None:
        """Write files, all or none. They appear in their order, after the data of all of them was written."""

    def add_folder(self, key: RoiKey, place: Place, files: Mapping[str, bytes]) -> None:
        """Write a folder with its files. It appears as a whole."""

    def remove(self, key: RoiKey, place: Place) -> None:
        """Remove a file or a folder, if it is there. A folder disappears as a whole."""

    def delete(self, key: RoiKey) -> None:
        """Remove an ROI, in one step for all readers. The caller holds both locks.

        Raises:
            FileNotFoundError: there is no such ROI.
        """

    def drop_empty(self, key: RoiKey) -> None:
        """Remove what an interrupted first fit left of an ROI. The caller holds both locks."""

    def clean(self) -> int:
        """Remove what interrupted writers left outside of ROIs. Return the number of removed files and folders."""

    def clean_roi(self, key: RoiKey) -> int:
        """Remove what interrupted writers left of an ROI. The caller holds both locks. Return the same."""

    def append_audit(self, key: RoiKey, entry: bytes) -> None:
        """Add a line to the audit trail of an ROI, for good.

        Raises:
            OSError: the line cannot be written.
        """

    def audit(self, key: RoiKey, last: int) -> Sequence[bytes]:
        """Return the last lines of the audit trail of an ROI, oldest first."""

    def note(self, name: str) -> bytes | None:
        """Return a small file that belongs to no ROI, or None. Its name begins with a dot, as no role's does.

        Raises:
            StorageUnavailableError: the bucket does not answer, and nothing is known from before.
        """

    def change_note(self, name: str, timeout_s: float, change: Callable[[bytes | None], bytes | None]) -> None:
        """Replace such a file by what `change` makes of its content, with no other writer in between.

        Args:
            name: of the file.
            timeout_s: longest time to wait for another writer.
            change: gets the content, or None; returns the new one, or None to leave it. It may be called again.
        """

    def size(self, place: Place) -> int:
        """Return the size of a file in bytes.

        Raises:
            OSError: it is missing.
        """

    def n_bytes(self, key: RoiKey) -> int:
        """Return the size of all files of an ROI."""

    def check_writable(self) -> None:
        """Check that the storage accepts writes."""

    def disk_space(self) -> DiskSpace | None:
        """Return the space of its disk, or None where there is no disk of its own."""
