"""Whether a bucket accepts writes, for probes and metrics that must not wait for it."""

import time
import uuid
from contextlib import suppress

from gateway.errors import StorageFullError
from gateway.store.bucket.objects import LostRaceError, Objects
from gateway.store.bucket.questions import Questions

_VALID_S = 5.0


class WriteCheck:
    """Writes and removes a small object, at most every few seconds. It is thread-safe."""

    def __init__(self, objects: Objects, questions: Questions) -> None:
        self._objects = objects
        self._questions = questions
        self._written_at: float | None = None
        self._refusal: StorageFullError | None = None

    def require(self) -> None:
        """Return if the bucket accepts writes, as known lately.

        Raises:
            StorageFullError: it does not.
            StorageUnavailableError: it does not answer. That is known after a second, not after obstore's time limit.
        """
        at = self._written_at
        if at is None or time.monotonic() - at >= _VALID_S or self._questions.is_late:
            self._questions.ask("write", self._write)
        if self._questions.is_late or (self._written_at is None and self._refusal is None):
            raise self._objects.unavailable()
        if self._refusal is not None:
            raise StorageFullError(self._refusal.message, self._refusal.hint)

    def _write(self) -> None:
        path = f"probe/{uuid.uuid4().hex}"
        try:
            with suppress(LostRaceError):  # obstore repeats a PUT whose answer was lost, and finds what it wrote
                self._objects.create(path, b"ok")
            self._objects.delete([path])
        except StorageFullError as error:
            self._refusal, self._written_at = error, None
        else:
            self._refusal, self._written_at = None, time.monotonic()
