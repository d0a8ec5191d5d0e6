"""Worker threads that are not let go of before they end."""

import asyncio
from collections.abc import Callable
from contextlib import suppress
from typing import Any, TypeVar

from anyio import CapacityLimiter, to_thread

_T = TypeVar("_T")


async def in_thread(function: Callable[..., _T], *args: Any, limiter: CapacityLimiter) -> _T:
    """Run a function in a worker thread; a caller that is cancelled leaves only once it has ended.

    A thread cannot be stopped. Were its caller to leave at once, its place among the limited and the admitted would be
    given to somebody else while it goes on.
    """
    task = asyncio.ensure_future(to_thread.run_sync(function, *args, limiter=limiter))
    try:
        return await asyncio.shield(task)
    except asyncio.CancelledError:
        while not task.done():
            with suppress(asyncio.CancelledError):
                await asyncio.wait({task})
        if not task.cancelled():
            task.exception()  # retrieved: nobody is left to be told
        raise
