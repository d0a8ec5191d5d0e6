"""Routes that are admitted before their body is read, so that what is refused costs neither memory nor parsing."""

import asyncio
from collections.abc import Callable, Coroutine
from typing import Annotated, Any

from fastapi import Depends, Request, Response
from fastapi.routing import APIRoute
from starlette.types import Message, Receive

from gateway.errors import SlowBodyError
from gateway.process.admission import Admission, Place
from gateway.process.services import Services

_FREE_S = 10.0
"""Time before the rate of a body counts."""


def admitted_by(admission: Callable[[Services], Admission]) -> type[APIRoute]:
    """A class of routes whose requests hold a place of `admission` from their first byte to their answer."""

    class AdmittedRoute(APIRoute):
        def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
            handle = super().get_route_handler()

            async def admit_and_handle(request: Request) -> Response:
                services: Services = request.app.state.services
                bytes_s = services.settings.min_upload_bytes_s
                work = admission(services)
                if work.is_closed:
                    # The connection will be closed; over bytes that nobody has read that is a reset, and no answer.
                    async for _ in Request(request.scope, _paced(request.receive, bytes_s)).stream():
                        pass
                with work.reserve(_declared_bytes(request)) as place:
                    request.state.place = place
                    counted = Request(request.scope, _paced(request.receive, bytes_s, place))
                    return await services.lifecycle.until_cut(handle(counted))

            return admit_and_handle

    return AdmittedRoute


def _place(request: Request) -> Place:
    place: Place = request.state.place
    return place


PlaceDep = Annotated[Place, Depends(_place)]


def _declared_bytes(request: Request) -> int:
    declared = request.headers.get("content-length", "0")
    return int(declared) if declared.isdecimal() else 0


def _paced(receive: Receive, bytes_s: int, place: Place | None = None) -> Receive:
    """`receive`, which gives up on a body that comes in too slowly: it holds a place that others wait for."""
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
                f"{seen} bytes of the body came in {took:.0f} s; at least {bytes_s} a second are asked for"
            ) from error
        seen += len(message.get("body", b""))
        if place is not None:
            place.receive(seen)
        is_whole = not message.get("more_body", False)
        return message

    return receive_in_time
