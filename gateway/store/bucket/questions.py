"""Questions to the bucket by readers that know an older answer, and so need not wait for a new one."""

import math
import threading
import time
from collections.abc import Callable, Hashable
from concurrent.futures import ThreadPoolExecutor, wait

from gateway.errors import GatewayError
from gateway.store.bucket.objects import Objects

_PATIENCE_S = 1.0
"""A packet that is lost has no answer: without a limit, a reader would wait as long as obstore does."""
_THREADS = 8


class Questions:
    """Asks in threads of its own. All methods are thread-safe."""

    def __init__(self, objects: Objects) -> None:
        self._objects = objects
        self._threads = ThreadPoolExecutor(_THREADS, thread_name_prefix="bucket")
        self._lock = threading.Lock()
        self._asked_at: dict[Hashable, float] = {}
        """Of what is being asked; infinite for a long question."""

    @property
    def is_late(self) -> bool:
        """Whether the last answer did not come, or a reader has given up to wait for the next."""
        with self._lock:
            return self._objects.is_silent or self._is_slow()

    def ask(self, about: Hashable, question: Callable[[], object], *, is_long: bool = False) -> None:
        """Ask, unless the same is being asked. Wait for a moment, or not at all while answers are late.

        Args:
            about: what is asked for.
            question: asks, and keeps the answer. A `GatewayError` of it is dropped: `is_late` tells what matters.
            is_long: it takes several answers of the bucket, so its time does not tell that they are late.
        """
        with self._lock:
            if about in self._asked_at or not self._objects.gets_turn():
                return
            waits = not (self._objects.is_silent or self._is_slow())
            self._asked_at[about] = math.inf if is_long else time.monotonic()
        asking = self._threads.submit(self._answered, about, question)
        if waits and wait((asking,), _PATIENCE_S).done:
            asking.result()

    def _answered(self, about: Hashable, question: Callable[[], object]) -> None:
        try:
            question()
        except GatewayError:
            pass
        finally:
            with self._lock:
                del self._asked_at[about]

    def _is_slow(self) -> bool:
        return any(time.monotonic() - at >= _PATIENCE_S for at in self._asked_at.values())
