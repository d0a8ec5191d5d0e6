"""The pointers of a bucket: what each ROI has, as this gateway knows it, and how a pointer is moved."""

import threading
import time
import uuid
from collections import OrderedDict
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import PurePosixPath

from gateway.errors import ArtifactCorruptError, GatewayError, StorageUnavailableError
from gateway.store.bucket.local_cache import LocalCache
from gateway.store.bucket.objects import LostRaceError, Objects, Tag
from gateway.store.bucket.questions import Questions
from gateway.store.bucket.roi_state import RoiFiles, RoiPointer, RoiState, StoredFile, new_object
from gateway.store.checksummed import DamagedError, sha256_of
from gateway.store.place import StorageProblem
from gateway.store.roi_key import RoiKey, key_of

_KEPT_S = 3600.0
"""How long a list remembers what it no longer has."""
_ABSENT = 1000
"""Names without an ROI that are remembered: those that were asked for last."""
_MOVES = 31
"""Moves of others between a PUT and the moment when its writer looks what became of it."""


@dataclass(frozen=True, slots=True)
class _Known:
    state: RoiState
    asked_at: float


class Pointers:
    """Every method blocks and is thread-safe."""

    def __init__(self, objects: Objects, questions: Questions, cache: LocalCache, poll_s: float) -> None:
        self._objects = objects
        self._questions = questions
        self._cache = cache
        self._poll_s = poll_s
        self._lock = threading.Lock()
        self._known: dict[RoiKey, _Known] = {}
        self._absent: OrderedDict[RoiKey, None] = OrderedDict()
        """What is known to have no pointer, the latest last."""
        self._asking: dict[RoiKey, threading.Lock] = {}
        self._damaged: dict[RoiKey, str] = {}
        self._keys: list[RoiKey] | None = None
        self._keys_at = -1e9

    def problem(self, key: RoiKey) -> StorageProblem | None:
        """Return why what is known of an ROI may be old, or None."""
        if key in self._damaged:
            return StorageProblem("pointer", self._damaged[key])
        return StorageProblem("storage", self._objects.unavailable().message) if self._questions.is_late else None

    def moved_at(self, key: RoiKey) -> datetime:
        """Return when the pointer of an ROI was moved, by the clock of the bucket.

        Raises:
            FileNotFoundError: there is none.
            StorageUnavailableError: the bucket does not answer.
        """
        return self._objects.modified(pointer_of(key))

    def keys(self) -> list[RoiKey]:
        """Return all ROIs that have a pointer, as known lately. While the bucket does not answer, those known before.

        Raises:
            StorageUnavailableError: the bucket has not answered yet.
        """
        if self._keys is None:
            self._objects.require_answers()
            return self.ask_for_all()
        if time.monotonic() - self._keys_at >= self._poll_s:
            self._questions.ask("all", self.ask_for_all, is_long=True)
        return self._keys

    def ask_for_all(self) -> list[RoiKey]:
        """Ask for the list of all pointers now. A pointer with a known ETag is not asked for again.

        Raises:
            StorageUnavailableError: the bucket does not answer.
        """
        now = time.monotonic()
        found = []
        for listed in self._objects.below("pointers/"):
            key = key_of(PurePosixPath(listed.path).relative_to("pointers"))
            if key is None:
                continue
            found.append(key)
            with self._lock:
                known = self._known.get(key)
                if known is not None and known.state.tag is not None and known.state.tag.e_tag == listed.e_tag:
                    self._known[key] = _Known(known.state, max(now, known.asked_at))
        with self._lock:
            if now >= self._keys_at:  # else a list that was asked for later has come before
                self._keys, self._keys_at = found, now
        return found

    def known(self, key: RoiKey) -> RoiState:
        """Return the state as last known, however old; asks if nothing is known."""
        known = self._known.get(key)
        return self.ask(key) if known is None else known.state

    def state(self, key: RoiKey) -> RoiState:
        """Return the files of an ROI, as known at most `poll_s` ago. While the bucket does not answer, as last known.

        Raises:
            ArtifactCorruptError: the pointer is damaged, and nothing is known from before.
            StorageUnavailableError: the bucket does not answer, and nothing is known from before.
        """
        known = self._known.get(key)
        if known is None:
            return self._first(key)
        if time.monotonic() - known.asked_at >= self._poll_s:
            self._questions.ask(key, lambda: self.ask(key))
        return (self._known.get(key) or known).state

    def _first(self, key: RoiKey) -> RoiState:
        with self._lock:
            asking = self._asking.setdefault(key, threading.Lock())
        try:
            with asking:  # another thread may ask just now
                known = self._known.get(key)
                if known is not None:
                    return known.state
                self._objects.require_answers()
                return self.ask(key)
        finally:
            with self._lock:
                self._asking.pop(key, None)

    def ask(self, key: RoiKey) -> RoiState:
        """Ask for the pointer of an ROI now.

        Raises:
            ArtifactCorruptError: the pointer or its list is damaged.
            StorageUnavailableError: the bucket does not answer.
        """
        now = time.monotonic()
        known = self._known.get(key)
        try:
            state = self._asked(key, None if known is None else known.state)
        except DamagedError as error:
            self._damaged[key] = f"its pointer in {self._objects.url} is damaged: {error}"
            raise ArtifactCorruptError(
                f"{key}: {self._damaged[key]}",
                f"scripts/artifacts repair {key} writes it anew, from the lists that are in the bucket.",
            ) from error
        self._damaged.pop(key, None)
        return self._learned(key, state, now)

    def content(self, key: RoiKey, name: str) -> bytes:
        """Return the content of an object of an ROI, from the cache or the bucket.

        Content that differs from its checksum in the bucket is returned as it is, and not kept.

        Raises:
            FileNotFoundError: it is missing in the bucket.
            StorageUnavailableError: the bucket does not answer.
        """
        sha256 = name[:64]
        data = self._cache.get(sha256)
        if data is not None:
            if sha256_of(data) == sha256:
                return data
            self._cache.drop(sha256)
        self._objects.require_answers()
        data = self._objects.get_large(object_of(key, name))
        if sha256_of(data) == sha256:
            self._cache.put(sha256, data)
        return data

    def move(self, key: RoiKey, before: RoiState, files: Mapping[str, StoredFile] | None) -> RoiState | None:
        """Move the pointer of an ROI from a state to other files, or to a deleted ROI.

        Returns:
            The state that the move made, or None if the pointer had moved meanwhile.

        Raises:
            StorageFullError: nothing was changed.
            StorageUnavailableError: nothing was changed, unless the message says that this is unknown.
        """
        move = uuid.uuid4().hex
        state = RoiState(moves=(move,))
        if files is not None:
            state = self._with_list(key, before, files, move)
        body = RoiPointer(files=state.list_object, move=move).to_bytes()
        try:
            tag = self._put(key, before, body)
        except LostRaceError:
            # Perhaps against ourselves: obstore repeats a PUT whose answer was lost.
            found = self.ask(key)
            if move in found.moves:
                return _made_by(move, found, state)
            with suppress(GatewayError):
                self._objects.delete([object_of(key, name) for name in (state.list_object,) if name is not None])
            return None
        except StorageUnavailableError as error:
            return self._settled(key, before, move, state, error)
        return self._learned(key, replace(state, tag=tag), time.monotonic())

    def _with_list(self, key: RoiKey, before: RoiState, files: Mapping[str, StoredFile], move: str) -> RoiState:
        """Upload the list of files, and return the state that a pointer to it stands for."""
        now = time.time()
        kept = {file.object for file in files.values()}
        gone = {file.object for file in before.files.values()} - kept
        dropped = {name: at for name, at in before.dropped.items() if at > now - _KEPT_S} | dict.fromkeys(gone, now)
        if before.list_object is not None:
            dropped[before.list_object] = now
        moves = (*before.moves[-_MOVES:], move)
        data = RoiFiles(files=dict(files), dropped=dropped, moves=moves).to_bytes()
        name = new_object(data)
        self._objects.put(object_of(key, name), data)
        self._cache.put(name[:64], data)
        return RoiState(None, dict(files), dropped, moves, name)

    def _settled(
        self, key: RoiKey, before: RoiState, move: str, state: RoiState, error: StorageUnavailableError
    ) -> RoiState:
        """Find out whether a PUT without an answer moved the pointer.

        It may still arrive. A move to where the pointer was makes its condition false for good.

        Raises:
            StorageUnavailableError: it did not, or nobody knows.
        """
        same = RoiPointer(files=before.list_object, move=uuid.uuid4().hex).to_bytes()
        try:
            with suppress(LostRaceError):
                self._put(key, before, same)
            found = self.ask(key)
        except StorageUnavailableError:
            raise StorageUnavailableError(
                f"{self._objects.url} stopped answering while {key} was changed: whether it was is unknown",
                "GET the ROI once the store answers, before the request is sent again.",
                retry_after_s=error.retry_after_s,
            ) from None
        if move in found.moves:
            return _made_by(move, found, state)
        raise error

    def _put(self, key: RoiKey, before: RoiState, body: bytes) -> Tag:
        if before.tag is None:
            return self._objects.create(pointer_of(key), body)
        return self._objects.exchange(pointer_of(key), body, before.tag)

    def _asked(self, key: RoiKey, known: RoiState | None) -> RoiState:
        try:
            if known is not None and known.tag is not None:
                body = self._objects.get_changed(pointer_of(key), known.tag)
                if body is None:
                    return known
            else:
                body = self._objects.get(pointer_of(key))
        except FileNotFoundError:
            return RoiState()
        pointer = RoiPointer.from_bytes(body.data, "the pointer")
        if pointer.files is None:
            return RoiState(body.tag, moves=(pointer.move,))
        if known is not None and known.list_object == pointer.files:
            return replace(known, tag=body.tag)
        try:
            data = self.content(key, pointer.files)
        except FileNotFoundError as error:
            raise DamagedError("the list that it names is missing") from error
        found = RoiFiles.from_bytes(data, "the list that it names")
        return RoiState(body.tag, found.files, found.dropped, found.moves, pointer.files)

    def _learned(self, key: RoiKey, state: RoiState, at: float) -> RoiState:
        """Keep a state, unless one that was asked for later is known already."""
        with self._lock:
            known = self._known.get(key)
            if known is None or known.asked_at <= at:
                self._known[key] = _Known(state, at)
                self._absent.pop(key, None)
                if state.tag is None:
                    self._absent[key] = None
                if len(self._absent) > _ABSENT:
                    self._known.pop(self._absent.popitem(last=False)[0], None)
        return state


def _made_by(move: str, found: RoiState, made: RoiState) -> RoiState:
    """Return the state that a move made. What others have moved since is not its writer's: it has not read it."""
    return found if found.moves[-1] == move else made


def pointer_of(key: RoiKey) -> str:
    """Return the path of the pointer of an ROI."""
    return f"pointers/{key.path.as_posix()}"


def object_of(key: RoiKey, name: str) -> str:
    """Return the path of an object of an ROI."""
    return f"objects/{key.path.as_posix()}/{name}"
