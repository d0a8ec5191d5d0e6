"""Turns at what several lines share: worker threads, and networks. A line that floods waits behind its own work.

A line is what shares an API key and an address: the requests of one computer beside one production line.
"""

import asyncio
import heapq
import itertools
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from contextvars import ContextVar
from dataclasses import dataclass, field

current_line: ContextVar[str] = ContextVar("line", default="")
"""The line whose request this is. Tasks that the request starts inherit it."""

_MANY_LINES = 64
"""Lines above which those that have no claim left are looked for and forgotten."""


@dataclass(order=True, slots=True)
class _Waiter:
    """Compared by its first three fields."""

    priority: int
    tag: int
    order: int
    n: int = field(compare=False)
    line: str = field(compare=False)
    turn: asyncio.Future[None] = field(compare=False)


class Turns:
    """A number of places that go to waiters by priority, and among equals to each line in turn.

    This is start-time fair queueing (Goyal, Vin and Cheng, "Start-time fair queueing", 1997): what is asked for gets a
    tag, the latest of the tag that is being served and of the end of the line's own last work, and the lowest tag is
    served first. So a line that asks seldom is next, however much another line has waiting, and no line waits for ever:
    tags only rise. One line alone is served in the order of its requests.
    """

    def __init__(self, places: int) -> None:
        """Start with all places free.

        Args:
            places: what may be held at once, at least 1. It may be changed at any time.
        """
        self.places = places
        self._held = 0
        self._tag = 0
        """The largest tag that was served."""
        self._ends: dict[str, int] = {}
        """Where the next work of a line begins."""
        self._order = itertools.count()
        self._waiters: list[_Waiter] = []

    async def take(self, n: int = 1, *, priority: int = 0) -> None:
        """Wait for places, in the name of the current line. `give` returns them.

        Args:
            n: number of places. More than there are is served alone.
            priority: a smaller number is served first.
        """
        line = current_line.get()
        tag = max(self._tag, self._ends.get(line, 0))
        self._ends[line] = tag + n
        if not self._waiters and self._has(n):
            self._hold(n, tag)
            return
        waiter = _Waiter(priority, tag, next(self._order), n, line, asyncio.get_running_loop().create_future())
        heapq.heappush(self._waiters, waiter)
        try:
            await waiter.turn
        except asyncio.CancelledError:
            was_served = waiter.turn.done() and not waiter.turn.cancelled()
            if not was_served:
                self._leave(waiter)
            self.give(n if was_served else 0)  # what waits behind it may fit where it did not
            raise

    def give(self, n: int = 1) -> None:
        """Return places, and hand them to the next waiters."""
        self._held -= n
        while self._waiters:
            first = self._waiters[0]
            if not first.turn.done():
                if not self._has(first.n):
                    return
                self._hold(first.n, first.tag)  # now, so that no other task takes them in between
                first.turn.set_result(None)
            heapq.heappop(self._waiters)
        if not self._held:
            self._tag = 0
            self._ends.clear()

    @asynccontextmanager
    async def turn(self, n: int = 1, *, priority: int = 0) -> AsyncIterator[None]:
        """Hold places in the ``async with`` block: see `take`."""
        await self.take(n, priority=priority)
        try:
            yield
        finally:
            self.give(n)

    async def __aenter__(self) -> None:
        """Take one place, so that a function that wants a limiter can be given these turns."""
        await self.take()

    async def __aexit__(self, *_: object) -> None:
        """Give it back."""
        self.give()

    def _leave(self, gone: _Waiter) -> None:
        """Let the line of a waiter be no further behind than without it."""
        with suppress(ValueError):  # `give` takes a waiter off that was cancelled a moment before
            self._waiters.remove(gone)
        for waiter in self._waiters:
            if waiter.line == gone.line and waiter.order > gone.order:
                waiter.tag = max(self._tag, waiter.tag - gone.n)
        heapq.heapify(self._waiters)
        if gone.line in self._ends:
            self._ends[gone.line] = max(self._tag, self._ends[gone.line] - gone.n)

    def _has(self, n: int) -> bool:
        return not self._held or self._held + n <= self.places

    def _hold(self, n: int, tag: int) -> None:
        self._held += n
        self._tag = max(self._tag, tag)
        if len(self._ends) > _MANY_LINES:
            self._ends = {line: end for line, end in self._ends.items() if end > self._tag}
