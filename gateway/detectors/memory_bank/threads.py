"""Threads for the arithmetic of this package: rows are shared out, and BLAS itself stays on one thread.

A BLAS or OpenMP pool spins between two products, which takes the processor from the network that runs beside it. Rows
are independent here, so that plain threads do: NumPy lets go of the interpreter in every call that matters.
"""

import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

from threadpoolctl import ThreadpoolController

_helpers: ThreadPoolExecutor | None = None
_threads = 1


def set_threads(threads: int) -> None:
    """Take this many threads for each search and coreset from now on (0: one a core), and one for NumPy's BLAS.

    Until it is called everything runs in the calling thread, and BLAS as it likes.
    """
    global _helpers, _threads
    _threads = threads or os.cpu_count() or 1
    _helpers = ThreadPoolExecutor(_threads - 1, thread_name_prefix="patchcore") if _threads > 1 else None
    for library in ThreadpoolController().lib_controllers:
        # FAISS brings a BLAS of its own; how many threads that takes is said elsewhere.
        if library.user_api == "blas" and "faiss" not in library.filepath:
            library.set_num_threads(1)


def split_rows(function: Callable[[int, int], object], rows: int, *, at_most: int, at_least: int = 64) -> None:
    """Call ``function(start, stop)`` for ranges that make up ``range(rows)``, on all threads.

    Args:
        function: safe to run for two ranges at once; what it raises is raised here.
        rows: may be 0.
        at_most: rows of one range, which bounds the memory that a call takes.
        at_least: rows worth a thread.
    """
    threads = max(1, min(_threads, rows // at_least))
    step = max(1, min(at_most, -(-rows // threads)))
    ranges = [(start, min(rows, start + step)) for start in range(0, rows, step)]
    if _helpers is None or threads == 1 or len(ranges) == 1:
        for start, stop in ranges:
            function(start, stop)
        return
    # Helpers take ranges from the end while this thread takes them from the start: none waits for a busy helper.
    futures = [_helpers.submit(function, start, stop) for start, stop in reversed(ranges)]
    for (start, stop), future in zip(ranges, reversed(futures), strict=True):
        if future.cancel():
            function(start, stop)
    for future in futures:
        if not future.cancelled():
            future.result()
