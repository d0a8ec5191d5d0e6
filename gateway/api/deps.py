"""FastAPI dependencies that routes share."""

from typing import Annotated

from fastapi import Depends, Request

from gateway.api.security.keys import Caller
from gateway.process.services import Services


def _services(request: Request) -> Services:
    services: Services = request.app.state.services
    return services


def _caller(request: Request) -> Caller:
    caller: Caller = request.state.caller
    return caller


ServicesDep = Annotated[Services, Depends(_services)]
"""The services of the application."""
CallerDep = Annotated[Caller, Depends(_caller)]
"""The caller. `Caller.roi` is the only way from the ids of a request to an `RoiKey`."""
