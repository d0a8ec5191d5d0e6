"""Threads for searches and coresets: plain threads share the rows, and BLAS runs on one thread.

The threads of a BLAS or OpenMP pool spin between two products and so slow down the network beside them. Plain threads
do not, and suffice: the rows are independent, and NumPy releases the interpreter lock in the costly calls.
"""

import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

from threadpoolctl import ThreadpoolController

_helpers: ThreadPoolExecutor | None = None
_threads = 1


def set_threads(threads: int) -> None:
    """Set the number of threads of each search and coreset (0: one per core), and one thread for NumPy's BLAS.

    Before the first call, all work runs in the calling thread and BLAS uses its own default.
    """
    global _helpers, _threads
    _threads = threads or os.cpu_count() or 1
    _helpers = ThreadPoolExecutor(_threads - 1, thread_name_prefix="patchcore") if _threads > 1 else None
    for library in ThreadpoolController().lib_controllers:
        # FAISS has a BLAS of its own; `gateway.process.services` sets its threads.
        if library.user_api == "blas" and "faiss" not in library.filepath:
            library.set_num_threads(1)


def split_rows(function: Callable[[int, int], object], rows: int, *, at_most: int, at_least: int = 64) -> None:
    """Call ``function(start, stop)`` for ranges that together make up ``range(rows)``, on all threads.

    Args:
        function: must be safe to run for two ranges at once. Its exceptions are raised here.
        rows: number of rows; may be 0.
        at_most: largest number of rows of one range; it bounds the memory that one call takes.
        at_least: smallest number of rows that justifies another thread.
    """
    threads = max(1, min(_threads, rows // at_least))
    step = max(1, min(at_most, -(-rows // threads)))
    ranges = [(start, min(rows, start + step)) for start in range(0, rows, step)]
    if _helpers is None or threads == 1 or len(ranges) == 1:
        for start, stop in ranges:
            function(start, stop)
        return
    # The helpers take ranges from the end, this thread takes them from the start: it never waits for a busy helper.
    task = _Task(function)
    try:
        futures = [_helpers.submit(task, start, stop) for start, stop in reversed(ranges)]
        for (start, stop), future in zip(ranges, reversed(futures), strict=True):
            if future.cancel():
                function(start, stop)
        for future in futures:
            if not future.cancelled():
                future.result()
    finally:
        task.function = None


class _Task:
    """A function that a helper calls.

    Cancelled calls stay in the queue until a helper comes to them. They must not hold the arrays of the function.
    """

    def __init__(self, function: Callable[[int, int], object]) -> None:
        self.function: Callable[[int, int], object] | None = function

    def __call__(self, start: int, stop: int) -> None:
        if self.function is not None:
            self.function(start, stop)
