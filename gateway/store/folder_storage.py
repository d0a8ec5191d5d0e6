"""The models folder.

A writer of an ROI holds a lock file, which works across processes and hosts that share the folder. A reader needs no
lock.
"""

import re
import shutil
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from pathlib import Path, PurePath

from gateway.store.atomic import read_replaced, replace_file, storage_errors, sync_folder, write_file
from gateway.store.audit_file import append_line, read_lines
from gateway.store.lock import held, is_held
from gateway.store.place import STORED_IMAGES, DiskSpace, Part, Place, StorageProblem
from gateway.store.roi_key import RoiKey, file_of, stored_keys
from gateway.store.together import complete_interrupted, write_together

_LOCKS = ".locks"
_TRASH = ".trash"
_AUDIT = PurePath(".audit")
_ASIDE = re.compile(r"\..+\.[0-9a-f]{32}\.tmp")
_PROBE = re.compile(r"\.probe\.[0-9a-f]{32}")


class FolderStorage:
    """A `Storage` in a folder. Its places are paths."""

    what = "the models folder"

    def __init__(self, root: Path) -> None:
        self.root = root

    def prepare(self) -> None:
        """Do nothing: a folder that cannot be written is reported when it is."""

    def keys(self) -> Iterator[RoiKey]:
        """See `Storage.keys`."""
        return stored_keys(self.root)

    def folder(self, key: RoiKey) -> Path:
        """See `Storage.folder`."""
        return self.root / key.path

    def problem(self, key: RoiKey) -> StorageProblem | None:
        """Return None: a folder is read anew each time."""
        return None

    @contextmanager
    def lock(self, key: RoiKey, part: Part, timeout_s: float) -> Iterator[None]:
        """Hold the lock file of a part of an ROI. What a killed writer of images had stored for good is completed."""
        what = f"the stored images of {key}" if part == "images" else str(key)
        with held(self._lock_file(key, part), what, timeout_s):
            if part == "images":
                with storage_errors():
                    complete_interrupted(self.folder(key) / STORED_IMAGES)
            yield

    def is_in_use(self, key: RoiKey) -> bool:
        """Return whether a writer holds a lock of the ROI, so its folder is not left from an interrupted fit."""
        return is_held(self._lock_file(key, "learned")) or is_held(self._lock_file(key, "images"))

    def claim(self, key: RoiKey, timeout_s: float, check: Callable[[], None]) -> None:
        """See `Storage.claim`."""
        with held(self.root / _LOCKS / ".names.lock", str(key), timeout_s), storage_errors():
            check()
            self.folder(key).mkdir(parents=True, exist_ok=True)

    def batch(self, key: RoiKey) -> AbstractContextManager[None]:
        """Do nothing: each change takes effect at once."""
        return nullcontext()

    def replace(self, key: RoiKey, place: Place, data: bytes) -> None:
        """See `Storage.replace`."""
        path = _path(place)
        with storage_errors():
            self._make(key, path.parent)
            replace_file(path, data)

    def add(self, key: RoiKey, files: Sequence[tuple[Place, Callable[[], bytes]]]) -> None:
        """See `Storage.add`. The files are in one folder; a pair of files needs no journal: the last one counts."""
        folder = _path(files[0][0]).parent
        with storage_errors():
            self._make(key, folder)
            write_together(folder, [(place.name, read) for place, read in files], journal=len(files) > 2)

    def add_folder(self, key: RoiKey, place: Place, files: Mapping[str, bytes]) -> None:
        """See `Storage.add_folder`."""
        final = _path(place)
        aside = _aside(final)
        with storage_errors():
            try:
                aside.mkdir(parents=True)
                for name, data in files.items():
                    write_file(aside / name, data)
                sync_folder(aside)
                aside.rename(final)
                sync_folder(final.parent)
                # A new role or ROI adds names to these folders. The folder of the ROI is synced with `current`.
                for folder in key.path.parents:
                    sync_folder(self.root / folder)
            except OSError:
                shutil.rmtree(aside, ignore_errors=True)
                raise

    def remove(self, key: RoiKey, place: Place) -> None:
        """See `Storage.remove`. A folder is renamed first, so that a half-removed folder is never read."""
        path = _path(place)
        if path.is_dir():
            gone = _aside(path)
            with suppress(OSError):
                path.rename(gone)
                shutil.rmtree(gone, ignore_errors=True)
        else:
            path.unlink(missing_ok=True)

    def delete(self, key: RoiKey) -> None:
        """See `Storage.delete`."""
        trash = self.root / _TRASH
        with storage_errors():
            trash.mkdir(exist_ok=True)
            gone = trash / uuid.uuid4().hex
            self.folder(key).rename(gone)
            sync_folder(self.folder(key).parent)
        shutil.rmtree(gone, ignore_errors=True)

    def drop_empty(self, key: RoiKey) -> None:
        """See `Storage.drop_empty`. A folder with other files stays."""
        folder = self.folder(key)
        for empty in (folder / "ok", folder / "versions", folder / STORED_IMAGES, folder):
            with suppress(OSError):
                empty.rmdir()

    def clean(self) -> int:
        """See `Storage.clean`. No reader sees these files, and a writer tolerates their removal."""
        gone = 0
        with suppress(OSError):
            gone += sum(_removed(path) for path in (self.root / _TRASH).glob("*"))
            gone += sum(_removed(path) for path in self.root.glob(".probe.*") if _PROBE.fullmatch(path.name))
        return gone

    def clean_roi(self, key: RoiKey) -> int:
        """See `Storage.clean_roi`. Only files and folders with names that a gateway gives are removed."""
        folder = self.folder(key)
        versions = folder / "versions"
        places = (folder, folder / "ok", folder / STORED_IMAGES, versions, *versions.glob("[0-9]*"))
        return sum(_removed(path) for place in places for path in _asides_in(place))

    def append_audit(self, key: RoiKey, entry: bytes) -> None:
        """See `Storage.append_audit`."""
        if append_line(file_of(self.root / _AUDIT, key, "jsonl"), entry):
            for folder in (_AUDIT / key.path).parents:
                sync_folder(self.root / folder)

    def audit(self, key: RoiKey, last: int) -> list[bytes]:
        """See `Storage.audit`."""
        return read_lines(file_of(self.root / _AUDIT, key, "jsonl"))[-last:]

    def note(self, name: str) -> bytes | None:
        """See `Storage.note`."""
        try:
            return read_replaced(self.root / name)
        except FileNotFoundError:
            return None

    def change_note(self, name: str, timeout_s: float, change: Callable[[bytes | None], bytes | None]) -> None:
        """See `Storage.change_note`."""
        path = self.root / name
        with held(path.with_suffix(".lock"), name, timeout_s), storage_errors():
            data = change(self.note(name))
            if data is not None:
                replace_file(path, data)

    def size(self, place: Place) -> int:
        """See `Storage.size`."""
        return _path(place).stat().st_size

    def n_bytes(self, key: RoiKey) -> int:
        """See `Storage.n_bytes`."""
        return sum(path.stat().st_size for path in self.folder(key).rglob("*") if path.is_file())

    def check_writable(self) -> None:
        """See `Storage.check_writable`. Writes and removes a small file."""
        with storage_errors():
            self.root.mkdir(parents=True, exist_ok=True)
            probe = self.root / f".probe.{uuid.uuid4().hex}"
            write_file(probe, b"ok")
            probe.unlink(missing_ok=True)

    def disk_space(self) -> DiskSpace | None:
        """See `Storage.disk_space`."""
        folder = self.root
        while not folder.exists():
            folder = folder.parent
        usage = shutil.disk_usage(folder)
        return DiskSpace(usage.free, usage.total)

    def _make(self, key: RoiKey, folder: Path) -> None:
        if not folder.is_dir():
            folder.mkdir(parents=True, exist_ok=True)
            # A new role or ROI adds names to the folders above.
            for above in (self.folder(key), *(self.root / part for part in key.path.parents)):
                if above.is_dir():
                    sync_folder(above)

    def _lock_file(self, key: RoiKey, part: Part) -> Path:
        path = file_of(self.root / _LOCKS, key, "lock")
        # No folder name starts with a dot, so this is the lock of no other ROI.
        return path.with_name(f".{path.name}") if part == "images" else path


def _path(place: Place) -> Path:
    assert isinstance(place, Path), "a place of this storage"
    return place


def _aside(path: Path) -> Path:
    return path.with_name(f".{path.name}.{uuid.uuid4().hex}.tmp")


def _asides_in(place: Path) -> Iterator[Path]:
    if place.is_dir():
        yield from (path for path in list(place.iterdir()) if _ASIDE.fullmatch(path.name))


def _removed(path: Path) -> bool:
    if path.is_dir():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)
    return not path.exists()
