"""Limit on how slowly a body may arrive."""

import asyncio

from starlette.types import Message, Receive

from gateway.errors import SlowBodyError
from gateway.process.admission import Place

_FREE_S = 10.0
"""The rate of a body is checked after this time."""


def paced(receive: Receive, bytes_s: int, place: Place | None = None) -> Receive:
    """Return a `receive` that raises when the body arrives too slowly. A slow body blocks a place that others need.

    Args:
        receive: the ASGI callable to wrap.
        bytes_s: lowest mean rate, in bytes a second.
        place: counts the bytes that have arrived.

    The callable raises:
        SlowBodyError: the body arrives too slowly.
        OverloadedError: `place` has no room for so many bytes.
    """
    start = asyncio.get_running_loop().time()
    seen = 0
    is_whole = False

    async def receive_in_time() -> Message:
        nonlocal seen, is_whole
        if is_whole:
            return await receive()
        try:
            async with asyncio.timeout_at(start + _FREE_S + seen / bytes_s):
                message = await receive()
        except TimeoutError as error:
            took = asyncio.get_running_loop().time() - start
            raise SlowBodyError(
                f"{seen} bytes of the body arrived in {took:.0f} s; the lowest rate is {bytes_s} bytes a second"
            ) from error
        seen += len(message.get("body", b""))
        if place is not None:
            place.receive(seen)
        is_whole = not message.get("more_body", False)
        return message

    return receive_in_time
