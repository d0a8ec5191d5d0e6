"""FastAPI dependencies that routes share."""

from typing import Annotated

from fastapi import Depends, Request

from gateway.api.fields import HeaderRecipe, QueryRecipe
from gateway.api.recipe import RoiCaller, header_recipe
from gateway.process.services import Services


# These are coroutines so that FastAPI calls them at once. It would call a plain function in a worker thread.
async def _services(request: Request) -> Services:
    services: Services = request.app.state.services
    return services


async def _caller(request: Request, recipe_id: QueryRecipe = None, x_recipe_id: HeaderRecipe = None) -> RoiCaller:
    # The parameter of the header is for the OpenAPI document: its value may need decoding.
    return RoiCaller(request.state.caller, recipe_id, header_recipe(request.headers.getlist("x-recipe-id")))


ServicesDep = Annotated[Services, Depends(_services)]
"""The services of the application."""
CallerDep = Annotated[RoiCaller, Depends(_caller)]
"""The caller. `RoiCaller.roi` is the only way from the ids of a request to an `RoiKey`."""
