"""Worker threads whose callers wait for their end, also when cancelled."""

import asyncio
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager, suppress
from typing import Any, TypeVar

from anyio import CapacityLimiter, to_thread

_T = TypeVar("_T")

_all = CapacityLimiter(256)
"""More than all limiters together let run, so that only these limit."""


async def in_thread(function: Callable[..., _T], *args: Any, limiter: AbstractAsyncContextManager[Any]) -> _T:
    """Run a function in a worker thread. A cancelled caller waits for the end of the thread before it raises.

    A thread cannot be stopped. If its caller left at once, its place in the limiter and in the admission would be free
    while the thread still runs.

    Args:
        function: the function to run.
        args: its arguments.
        limiter: held while the thread runs, and so limits the number of threads that run at once.
    """
    async with limiter:
        task = asyncio.ensure_future(to_thread.run_sync(function, *args, limiter=_all))
        try:
            return await asyncio.shield(task)
        except asyncio.CancelledError:
            while not task.done():
                with suppress(asyncio.CancelledError):
                    await asyncio.wait({task})
            if not task.cancelled():
                task.exception()  # marks the exception as retrieved; the caller is cancelled
            raise
