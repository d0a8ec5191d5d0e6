"""Small files of a bucket that belong to no ROI."""

import threading
import time
from collections.abc import Callable

from gateway.errors import OverloadedError
from gateway.store.bucket.objects import LostRaceError, Objects
from gateway.store.bucket.questions import Questions

_TRIES = 20


class Notes:
    """Every method blocks and is thread-safe."""

    def __init__(self, objects: Objects, questions: Questions, poll_s: float) -> None:
        self._objects = objects
        self._questions = questions
        self._poll_s = poll_s
        self._lock = threading.Lock()
        self._known: dict[str, tuple[float, bytes | None]] = {}

    def read(self, name: str) -> bytes | None:
        """See `Storage.note`. It is asked for as seldom as a pointer."""
        known = self._known.get(name)
        if known is None:
            self._objects.require_answers()
            self._ask(name)
        elif time.monotonic() - known[0] >= self._poll_s:
            self._questions.ask(name, lambda: self._ask(name))
        return self._known[name][1]

    def change(self, name: str, change: Callable[[bytes | None], bytes | None]) -> None:
        """See `Storage.change_note`. Nobody waits: the loser of a race makes the change of the new content."""
        path = _path_of(name)
        for _ in range(_TRIES):
            asked_at = time.monotonic()
            try:
                before = self._objects.get(path)
            except FileNotFoundError:
                before = None
            found = None if before is None else before.data
            data = change(found)
            if data is None or data == found:
                self._learned(name, found, asked_at)
                return
            try:
                if before is None:
                    self._objects.create(path, data)
                else:
                    self._objects.exchange(path, data, before.tag)
            except LostRaceError:
                continue
            self._learned(name, data, time.monotonic())
            return
        raise OverloadedError(f"{name}: others change it all the time", retry_after_s=1)

    def _ask(self, name: str) -> None:
        asked_at = time.monotonic()
        try:
            data = self._objects.get(_path_of(name)).data
        except FileNotFoundError:
            data = None
        self._learned(name, data, asked_at)

    def _learned(self, name: str, data: bytes | None, at: float) -> None:
        """Keep a content, unless one that was asked for later is known already."""
        with self._lock:
            known = self._known.get(name)
            if known is None or known[0] <= at:
                self._known[name] = at, data


def _path_of(name: str) -> str:
    return f"notes/{name}"
