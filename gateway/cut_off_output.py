"""Output into a pipe whose reader has ended, such as `head`."""

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager

_STATUS = 141
"""As a shell states it for a program that SIGPIPE ended."""


@contextmanager
def quiet_if_cut_off() -> Iterator[None]:
    """End the process without a traceback if the reader of its output has ended.

    Raises:
        SystemExit: it has.
    """
    try:
        yield
        sys.stdout.flush()
    except BrokenPipeError:
        # The interpreter flushes once more at its end.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        raise SystemExit(_STATUS) from None
