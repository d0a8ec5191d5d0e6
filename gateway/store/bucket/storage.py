"""A bucket as a `Storage`. The package says how it works."""

import re
import threading
import time
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path, PurePosixPath
from weakref import WeakValueDictionary

from gateway.errors import GatewayError, InvalidRequestError, OverloadedError
from gateway.store.bucket.local_cache import LocalCache
from gateway.store.bucket.notes import Notes
from gateway.store.bucket.objects import LostRaceError, Objects
from gateway.store.bucket.place import BucketPlace
from gateway.store.bucket.pointers import Pointers
from gateway.store.bucket.questions import Questions
from gateway.store.bucket.roi_state import RoiState, StoredFile, new_object
from gateway.store.bucket.self_test import require_conditional_writes
from gateway.store.bucket.write_check import WriteCheck
from gateway.store.checksummed import sha256_of
from gateway.store.place import DiskSpace, Part, Place, StorageProblem
from gateway.store.roi_key import RoiKey

_TRIES = 20
"""Moves of a pointer that lose against changes of the other part of the ROI."""
_GRACE = timedelta(hours=1)
"""How long contents that nothing names are kept: longer than an upload, or than somebody reads what he has found."""
_READERS = 16
_TOKENS = re.compile(r"(ok|images)/[0-9a-f]{64}\.npz")


@dataclass(slots=True)
class _Batch:
    """Changes of one ROI that take effect together."""

    files: dict[str, StoredFile]
    """As they will be."""
    edits: dict[str, StoredFile | None] = field(default_factory=dict)
    contents: dict[str, bytes] = field(default_factory=dict)


class _Writer(threading.local):
    """What the writer of this thread has seen and will change."""

    def __init__(self) -> None:
        self.seen: dict[RoiKey, dict[Part, dict[str, StoredFile]]] = {}
        self.states: dict[RoiKey, RoiState] = {}
        """What the writer reads. What this gateway knows may change meanwhile, by a late answer even to what was."""
        self.batches: dict[RoiKey, _Batch] = {}


class BucketStorage:
    """A `Storage` in a bucket."""

    def __init__(self, url: str, *, cache: Path, cache_bytes: int, poll_s: float) -> None:
        """Connect to nothing yet.

        Args:
            url: bucket and prefix, such as ``s3://bucket/prefix``.
            cache: folder of the contents that were read.
            cache_bytes: largest size of the folder.
            poll_s: shortest time between two questions for one pointer.

        Raises:
            ValueError: the URL or a variable of the environment cannot be used.
        """
        self._objects = Objects(url)
        self._cache = LocalCache(cache, cache_bytes)
        self._questions = Questions(self._objects)
        self._pointers = Pointers(self._objects, self._questions, self._cache, poll_s)
        self._writer = _Writer()
        self._locks: WeakValueDictionary[tuple[RoiKey, Part], threading.Lock] = WeakValueDictionary()
        """Those that a thread holds or waits for."""
        self._guard = threading.Lock()
        self._is_tested = False
        self._cleaned_at: dict[RoiKey, float] = {}
        self._notes = Notes(self._objects, self._questions, poll_s)
        self._writes = WriteCheck(self._objects, self._questions)

    @property
    def what(self) -> str:
        """Its name in messages."""
        return self._objects.url

    def prepare(self) -> None:
        """See `Storage.prepare`."""
        with self._guard:
            if not self._is_tested:
                require_conditional_writes(self._objects)
                self._is_tested = True

    def keys(self) -> list[RoiKey]:
        """See `Storage.keys`."""
        return self._pointers.keys()

    def folder(self, key: RoiKey) -> BucketPlace:
        """See `Storage.folder`."""
        return BucketPlace(self, key)

    def problem(self, key: RoiKey) -> StorageProblem | None:
        """See `Storage.problem`."""
        return self._pointers.problem(key)

    def files(self, key: RoiKey) -> Mapping[str, StoredFile]:
        """See `Files.files`."""
        batch = self._writer.batches.get(key)
        return self._state(key).files if batch is None else batch.files

    def read(self, key: RoiKey, name: str) -> bytes:
        """See `Files.read`. What differs from its checksum in the bucket too is returned as it is.

        Raises:
            FileNotFoundError: the ROI has no such file, or its object is missing.
            StorageUnavailableError: the bucket does not answer.
        """
        if _TOKENS.fullmatch(name):
            data = self._cache.get(_token_name(key, name))
            if data is None:
                raise FileNotFoundError(name)
            return data
        file = self.files(key).get(name)
        if file is None:
            raise FileNotFoundError(name)
        batch = self._writer.batches.get(key)
        if batch is not None and file.object in batch.contents:
            return batch.contents[file.object]
        return self._pointers.content(key, file.object)

    @contextmanager
    def lock(self, key: RoiKey, part: Part, timeout_s: float) -> Iterator[None]:
        """Exclude the other writers of this gateway, and notice those of others."""
        with self._guard:
            lock = self._locks.setdefault((key, part), threading.Lock())
        if not lock.acquire(timeout=timeout_s):
            raise OverloadedError(
                f"{key}: another fit or change of this ROI is still at work after {timeout_s:g} s",
                retry_after_s=max(1, round(timeout_s / 2)),
            )
        try:
            self.prepare()
            seen = self._writer.seen.setdefault(key, {})
            state = self._pointers.ask(key)
            self._writer.states[key], seen[part] = state, state.part(part)
            try:
                yield
            finally:
                del seen[part]
                if not seen:
                    del self._writer.seen[key], self._writer.states[key]
        finally:
            lock.release()

    def is_in_use(self, key: RoiKey) -> bool:
        """Return whether an ROI is being made, or a writer of this gateway is at work on it."""
        with self._guard:
            is_locked = any(lock.locked() for (of, _), lock in self._locks.items() if of == key)
        state = self._pointers.state(key)
        return is_locked or (state.list_object is not None and not state.files)

    def claim(self, key: RoiKey, timeout_s: float, check: Callable[[], None]) -> None:
        """See `Storage.claim`."""
        check()
        if self._pointers.ask(key).list_object is not None:
            return
        self._commit(key, {}, claims=True)
        self._pointers.ask_for_all()
        try:
            check()
        except InvalidRequestError as error:
            self._pointers.move(key, self._pointers.state(key), None)
            raise OverloadedError(
                f"{key}: an ROI whose name differs only in case is being made", retry_after_s=1
            ) from error

    @contextmanager
    def batch(self, key: RoiKey) -> Iterator[None]:
        """Collect the changes of the block, and let them take effect at its end, if it ends without an error."""
        batches = self._writer.batches
        if key in batches:
            yield
            return
        batch = batches[key] = _Batch(dict(self._state(key).files))
        try:
            yield
        finally:
            del batches[key]
        self._commit(key, batch.edits)

    def replace(self, key: RoiKey, place: Place, data: bytes) -> None:
        """See `Storage.replace`. Tokens go to the cache of this gateway."""
        name = _name(place)
        if _TOKENS.fullmatch(name):
            self._cache.put(_token_name(key, name), data)
        else:
            self._change(key, {name: data})

    def add(self, key: RoiKey, files: Sequence[tuple[Place, Callable[[], bytes]]]) -> None:
        """See `Storage.add`."""
        self._change(key, {_name(place): read() for place, read in files})

    def add_folder(self, key: RoiKey, place: Place, files: Mapping[str, bytes]) -> None:
        """See `Storage.add_folder`."""
        self._change(key, {f"{_name(place)}/{name}": data for name, data in files.items()})

    def remove(self, key: RoiKey, place: Place) -> None:
        """See `Storage.remove`."""
        name = _name(place)
        if _TOKENS.fullmatch(name):
            self._cache.drop(_token_name(key, name))
            return
        gone = [each for each in self.files(key) if each == name or each.startswith(f"{name}/")]
        if gone:
            self._change(key, dict.fromkeys(gone))

    def delete(self, key: RoiKey) -> None:
        """See `Storage.delete`."""
        for _ in range(_TRIES):
            state = self._pointers.ask(key)
            if not state.files:
                raise FileNotFoundError(str(key))
            self._require_seen(key, state)
            if self._pointers.move(key, state, None) is not None:
                seen = self._writer.seen.get(key, {})
                seen.update({part: {} for part in seen})
                if seen:
                    self._writer.states[key] = RoiState()
                return
        raise _lost(key)

    def drop_empty(self, key: RoiKey) -> None:
        """See `Storage.drop_empty`. One that was made within the last hour stays, since its fit may still run."""
        state = self._pointers.ask(key)
        is_empty = state.list_object is not None and not state.files
        if is_empty and self._pointers.moved_at(key) < self._objects.now() - _GRACE:
            self._pointers.move(key, state, None)

    def clean(self) -> int:
        """See `Storage.clean`."""
        old = self._objects.now() - _GRACE
        gone = [each.path for each in self._objects.below("probe/") if each.modified < old]
        self._objects.delete(gone)
        return len(gone)

    def clean_roi(self, key: RoiKey) -> int:
        """Remove contents that no list names, and that no reader can be reading."""
        listed = self._objects.below(f"{_objects_of(key)}/")
        now = self._objects.now()
        state = self._pointers.ask(key)
        named = {file.object for file in state.files.values()} | {state.list_object}
        named |= {name for name, at in state.dropped.items() if at > now.timestamp() - _GRACE.total_seconds()}
        gone = [
            each.path for each in listed if PurePosixPath(each.path).name not in named and each.modified < now - _GRACE
        ]
        self._objects.delete(gone)
        return len(gone)

    def append_audit(self, key: RoiKey, entry: bytes) -> None:
        """See `Storage.append_audit`."""
        path = f"audit/{key.path.as_posix()}/{time.time_ns():020d}-{uuid.uuid4().hex[:8]}"
        with suppress(LostRaceError):  # a second try found what the first one wrote: nobody else has this name
            self._objects.create(path, entry)

    def audit(self, key: RoiKey, last: int) -> list[bytes]:
        """See `Storage.audit`."""
        paths = [each.path for each in self._objects.below(f"audit/{key.path.as_posix()}/")][-last:]
        with ThreadPoolExecutor(_READERS) as pool:
            return list(pool.map(lambda path: self._objects.get(path).data, paths))

    def note(self, name: str) -> bytes | None:
        """See `Storage.note`."""
        return self._notes.read(name)

    def change_note(self, name: str, timeout_s: float, change: Callable[[bytes | None], bytes | None]) -> None:
        """See `Storage.change_note`."""
        self.prepare()
        self._notes.change(name, change)

    def size(self, place: Place) -> int:
        """See `Storage.size`."""
        name = _name(place)
        files = self.files(_key(place))
        if name not in files:
            raise FileNotFoundError(name)
        return files[name].size

    def n_bytes(self, key: RoiKey) -> int:
        """See `Storage.n_bytes`."""
        return sum(file.size for file in self.files(key).values())

    def check_writable(self) -> None:
        """See `Storage.check_writable`."""
        self._writes.require()

    def disk_space(self) -> DiskSpace | None:
        """Return None: a bucket does not say."""
        return None

    def _change(self, key: RoiKey, contents: Mapping[str, bytes | None]) -> None:
        """Upload contents, and put the files on the list, or take them off; at the end of the batch, if one runs."""
        edits: dict[str, StoredFile | None] = {}
        uploads: dict[str, bytes] = {}
        for name, data in contents.items():
            if data is None:
                edits[name] = None
                continue
            edits[name] = file = StoredFile(object=new_object(data), size=len(data))
            uploads[file.object] = data
        self._upload(key, uploads)
        batch = self._writer.batches.get(key)
        if batch is None:
            self._commit(key, edits)
            return
        batch.contents |= uploads
        batch.edits |= edits
        for name, edit in edits.items():
            batch.files.pop(name, None)
            if edit is not None:
                batch.files[name] = edit

    def _upload(self, key: RoiKey, uploads: Mapping[str, bytes]) -> None:
        def put(name: str) -> None:
            self._objects.put(f"{_objects_of(key)}/{name}", uploads[name])
            self._cache.put(name[:64], uploads[name])

        if len(uploads) == 1:
            put(*uploads)
        elif uploads:
            with ThreadPoolExecutor(_READERS) as pool:
                list(pool.map(put, uploads))

    def _commit(self, key: RoiKey, edits: Mapping[str, StoredFile | None], *, claims: bool = False) -> None:
        """Move the pointer to a list with the changes."""
        if not edits and not claims:
            return
        state = self._pointers.known(key)
        for _ in range(_TRIES):
            self._require_seen(key, state)
            files = {**state.files, **{name: file for name, file in edits.items() if file is not None}}
            for name, file in edits.items():
                if file is None:
                    files.pop(name, None)
            moved = self._pointers.move(key, state, files)
            if moved is not None:
                seen = self._writer.seen.get(key, {})
                for part in seen:
                    seen[part] = moved.part(part)
                if seen:
                    self._writer.states[key] = moved
                if moved.dropped:
                    self._clean_soon(key)
                return
            state = self._pointers.ask(key)
        raise _lost(key)

    def _state(self, key: RoiKey) -> RoiState:
        """Return what the writer of this thread has seen, or what is known."""
        state = self._writer.states.get(key)
        return self._pointers.state(key) if state is None else state

    def _require_seen(self, key: RoiKey, state: RoiState) -> None:
        for part, seen in self._writer.seen.get(key, {}).items():
            if state.part(part) != seen:
                raise _lost(key)

    def _clean_soon(self, key: RoiKey) -> None:
        """Clean up an ROI that changes, at most once in an hour."""
        now = time.monotonic()
        if now - self._cleaned_at.setdefault(key, now) > _GRACE.total_seconds():
            self._cleaned_at[key] = now
            with suppress(GatewayError):  # the next change does it
                self.clean_roi(key)


def _lost(key: RoiKey) -> OverloadedError:
    return OverloadedError(f"{key}: another gateway changed this ROI meanwhile; nothing was changed", retry_after_s=1)


def _objects_of(key: RoiKey) -> str:
    return f"objects/{key.path.as_posix()}"


def _token_name(key: RoiKey, name: str) -> str:
    return f"tokens-{sha256_of(f'{key}/{name}'.encode())}"


def _name(place: Place) -> str:
    assert isinstance(place, BucketPlace), "a place of this storage"
    return place.path


def _key(place: Place) -> RoiKey:
    assert isinstance(place, BucketPlace), "a place of this storage"
    return place.key
