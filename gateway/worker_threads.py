"""Worker threads whose callers wait for their end, also when cancelled."""

import asyncio
from collections.abc import Callable
from contextlib import suppress
from typing import Any, TypeVar

from anyio import CapacityLimiter, to_thread

_T = TypeVar("_T")


async def in_thread(function: Callable[..., _T], *args: Any, limiter: CapacityLimiter) -> _T:
    """Run a function in a worker thread. A cancelled caller waits for the end of the thread before it raises.

    A thread cannot be stopped. If its caller left at once, its place in the limiter and in the admission would be free
    while the thread still runs.

    Args:
        function: the function to run.
        args: its arguments.
        limiter: limits the number of threads that run at once.
    """
    task = asyncio.ensure_future(to_thread.run_sync(function, *args, limiter=limiter))
    try:
        return await asyncio.shield(task)
    except asyncio.CancelledError:
        while not task.done():
            with suppress(asyncio.CancelledError):
                await asyncio.wait({task})
        if not task.cancelled():
            task.exception()  # marks the exception as retrieved; the caller is cancelled
        raise
