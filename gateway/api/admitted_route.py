"""Routes that are admitted before their body is read, so that a refused request costs no memory and no parsing."""

from collections.abc import Callable, Coroutine
from typing import Annotated, Any

from fastapi import Depends, Request, Response

from gateway.api.strict_route import StrictRoute
from gateway.api.upload_pace import paced
from gateway.process.admission import Admission, Place
from gateway.process.services import Services
from gateway.turns import current_line


def admitted_by(admission: Callable[[Services], Admission], *, ignores_unknown: bool = False) -> type[StrictRoute]:
    """Return a route class whose requests hold a place of `admission` from their first byte to their answer.

    Args:
        admission: selects the admission among the services.
        ignores_unknown: as in `StrictRoute`.
    """
    ignores = ignores_unknown

    class AdmittedRoute(StrictRoute):
        ignores_unknown = ignores

        def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
            handle = super().get_route_handler()

            async def admit_and_handle(request: Request) -> Response:
                services: Services = request.app.state.services
                bytes_s = services.settings.min_upload_bytes_s
                work = admission(services)
                if work.is_closed:
                    # The connection will be closed. Closing it with unread bytes resets it, and the answer is lost.
                    async for _ in Request(request.scope, paced(request.receive, bytes_s)).stream():
                        pass
                current_line.set(_line(request))
                with work.reserve(_declared_bytes(request)) as place:
                    request.state.place = place
                    counted = Request(request.scope, paced(request.receive, bytes_s, place))
                    return await services.lifecycle.until_cut(handle(counted))

            return admit_and_handle

    return AdmittedRoute


async def _place(request: Request) -> Place:  # a coroutine, so that FastAPI needs no thread for it
    place: Place = request.state.place
    return place


PlaceDep = Annotated[Place, Depends(_place)]
"""The place that the request holds."""


def _line(request: Request) -> str:
    """Return the line that a request is of: its API key, or none, at its address.

    The address keeps lines apart that share a key, and the key those behind one proxy.
    """
    address = "" if request.client is None else request.client.host
    return f"{request.state.caller.name}@{address}"


def _declared_bytes(request: Request) -> int:
    declared = request.headers.get("content-length", "0")
    return int(declared) if declared.isdecimal() else 0
