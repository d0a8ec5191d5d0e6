"""A file or folder of an ROI in a bucket."""

from collections.abc import Iterator, Mapping
from fnmatch import fnmatchcase
from pathlib import PurePosixPath
from typing import Protocol

from gateway.store.bucket.roi_state import StoredFile
from gateway.store.place import Place
from gateway.store.roi_key import RoiKey


class Files(Protocol):
    """What a place asks."""

    def files(self, key: RoiKey) -> Mapping[str, StoredFile]:
        """Return the files of an ROI by name, with the changes of a running batch of this thread."""

    def read(self, key: RoiKey, name: str) -> bytes:
        """Return the content of a file."""


class BucketPlace:
    """A `Place` by the name of an ROI's file or folder; the ROI's own folder has the name ``""``."""

    def __init__(self, storage: Files, key: RoiKey, path: str = "") -> None:
        self._storage = storage
        self.key = key
        self.path = path

    def __repr__(self) -> str:
        return f"{self.key}: {self.path}"

    @property
    def name(self) -> str:
        """See `Place.name`."""
        return PurePosixPath(self.path).name

    @property
    def stem(self) -> str:
        """See `Place.stem`."""
        return PurePosixPath(self.path).stem

    @property
    def suffix(self) -> str:
        """See `Place.suffix`."""
        return PurePosixPath(self.path).suffix

    def __truediv__(self, name: str, /) -> "BucketPlace":
        return BucketPlace(self._storage, self.key, f"{self._inside}{name}")

    def read_bytes(self) -> bytes:
        """See `Place.read_bytes`."""
        return self._storage.read(self.key, self.path)

    def exists(self) -> bool:
        """See `Place.exists`."""
        return self.path in self._storage.files(self.key) or self.is_dir()

    def is_dir(self) -> bool:
        """See `Place.is_dir`."""
        return any(name.startswith(self._inside) for name in self._storage.files(self.key))

    def glob(self, pattern: str, /) -> Iterator[Place]:
        """See `Place.glob`. The pattern is one of a single name, without a slash."""
        inside = self._inside
        names = [name for name in self._storage.files(self.key) if name.startswith(inside)]
        children = {name.removeprefix(inside).partition("/")[0] for name in names}
        return (self / child for child in sorted(children) if fnmatchcase(child, pattern))

    @property
    def _inside(self) -> str:
        return f"{self.path}/" if self.path else ""
