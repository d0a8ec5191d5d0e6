"""The application of the dialect."""

from fastapi import FastAPI
from fastapi.routing import APIRoute
from starlette.routing import Route
from starlette.types import ASGIApp

from gateway.api.error_handlers import install_error_handlers
from gateway.api.middleware.body_limit import BodyLimitMiddleware
from gateway.api.middleware.request_id import RequestIdMiddleware
from gateway.api.middleware.request_target import HeadMiddleware
from gateway.api.security.keys import KeyRing
from gateway.gui.access import GuiAccessMiddleware
from gateway.gui.answers import IdsMiddleware
from gateway.gui.dispatch import PREFIX
from gateway.gui.routes import datasets, inspect, learn, state
from gateway.inspection.pipeline import InspectionPipeline
from gateway.process.services import Services

_ROUTERS = (
    state.router,
    learn.fits,
    learn.router,
    inspect.router,
    datasets.uploads,
    datasets.router,
    datasets.changes,
)


def create_gui(services: Services, keys: KeyRing) -> ASGIApp:
    """Return the application that answers the GUI. It has no API document: the GUI's author has the contract.

    Args:
        services: those of the gateway.
        keys: the API keys.

    Raises:
        KeyListError: ``GATEWAY_GUI_CLIENTS`` names a key that there is not.
    """
    settings = services.settings
    app = FastAPI(openapi_url=None, docs_url=None, redoc_url=None, redirect_slashes=False)
    app.state.services = services
    # Data sets that are inspected again and again are no stream of parts: drift and counters do not see them.
    app.state.evaluation = InspectionPipeline(
        services.engines, services.banks, services.store, services.weighting, settings
    )
    for router in _ROUTERS:
        app.include_router(router)
    install_error_handlers(app)
    # Built from the inside out.
    limited = BodyLimitMiddleware(
        HeadMiddleware(app),
        max_bytes=settings.max_body_bytes,
        max_json_bytes=settings.max_json_bytes,
        forms=(("POST", "/infer"), ("POST", "/fit_ok"), ("POST", "/datasets/{label}/upload")),
    )
    allowed = GuiAccessMiddleware(
        limited, keys, allow_anonymous=settings.allow_anonymous, clients=settings.gui_client_keys
    )
    return IdsMiddleware(RequestIdMiddleware(allowed))


def gui_routes(*, at_root: bool) -> list[Route]:
    """Return the endpoints by the paths that clients call, to name them in metrics and traces.

    Args:
        at_root: whether the dialect is served at ``/`` too.
    """
    prefixes = (PREFIX, "") if at_root else (PREFIX,)
    return [
        Route(f"{prefix}{route.path}", route.endpoint, methods=route.methods)
        for prefix in prefixes
        for router in _ROUTERS
        for route in router.routes
        if isinstance(route, APIRoute)
    ]
