"""Worker threads whose callers wait for their end, also when cancelled."""

import asyncio
from collections.abc import Callable, Coroutine
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractAsyncContextManager, suppress
from contextvars import ContextVar, copy_context
from typing import Any, TypeVar

_T = TypeVar("_T")

_threads = ThreadPoolExecutor(256, thread_name_prefix="worker")
"""More than all limiters together let run, so that only these limit."""
_loop: ContextVar[asyncio.AbstractEventLoop] = ContextVar("loop")
"""In a worker thread, the event loop of its caller."""


async def in_thread(function: Callable[..., _T], *args: Any, limiter: AbstractAsyncContextManager[Any]) -> _T:
    """Run a function in a worker thread. A cancelled caller waits for the end of the thread before it raises.

    A thread cannot be stopped. If its caller left at once, its place in the limiter and in the admission would be free
    while the thread still runs.

    Args:
        function: the function to run. It sees the context variables of the caller.
        args: its arguments.
        limiter: held while the thread runs, and so limits the number of threads that run at once.
    """
    async with limiter:
        loop, context = asyncio.get_running_loop(), copy_context()
        context.run(_loop.set, loop)
        work = loop.run_in_executor(_threads, context.run, function, *args)
        try:
            return await asyncio.shield(work)
        except asyncio.CancelledError:
            while not work.done():
                with suppress(asyncio.CancelledError):
                    await asyncio.wait({work})
            if not work.cancelled():
                work.exception()  # marks the exception as retrieved; the caller is cancelled
            raise


def on_event_loop(function: Callable[..., Coroutine[Any, Any, _T]], *args: Any) -> _T:
    """Run a coroutine function on the event loop from a thread that `in_thread` started, and wait for its result."""
    return asyncio.run_coroutine_threadsafe(function(*args), _loop.get()).result()
