"""Progress of a fit in the log: one line now and then, none for a fit that is quick."""

import logging
import time

log = logging.getLogger(__name__)

_EVERY_S = 5.0


class Progress:
    """Counts what is done and logs it every few seconds."""

    def __init__(self, message: str, total: int) -> None:
        """Start at 0.

        Args:
            message: with two places, as in ``"read %d of %d images"``.
            total: number that is complete.
        """
        self._message = message
        self._total = total
        self._done = 0
        self._last = time.monotonic()

    def add(self, n: int) -> None:
        """Count n more."""
        self._done = min(self._total, self._done + n)
        if time.monotonic() - self._last >= _EVERY_S:
            self._last = time.monotonic()
            log.info(self._message, self._done, self._total)
