"""Worker threads whose callers wait for their end, also when cancelled."""

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractAsyncContextManager, suppress
from contextvars import copy_context
from typing import Any, TypeVar

_T = TypeVar("_T")

_threads = ThreadPoolExecutor(128, thread_name_prefix="worker")
"""More than all limiters together let run, so that only these limit. A thread starts when the others are busy."""


async def in_thread(function: Callable[..., _T], *args: Any, limiter: AbstractAsyncContextManager[Any]) -> _T:
    """Run a function in a worker thread. A cancelled caller waits for the end of the thread before it raises.

    A thread cannot be stopped. If its caller left at once, its place in the limiter and in the admission would be free
    while the thread still runs.

    Args:
        function: the function to run. It sees the context variables of the caller.
        args: its arguments.
        limiter: held while the thread runs: limits the number of threads that run at once.
    """
    async with limiter:
        running = asyncio.get_running_loop().run_in_executor(_threads, copy_context().run, function, *args)
        try:
            return await asyncio.shield(running)
        except asyncio.CancelledError:
            while not running.done():
                with suppress(asyncio.CancelledError):
                    await asyncio.wait({running})
            if not running.cancelled():
                running.exception()  # marks the exception as retrieved; the caller is cancelled
            raise
