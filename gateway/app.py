"""Wiring only: `create_app(settings)`, and ``app`` for ``uvicorn gateway.app:app``."""

import asyncio
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

if not __package__:  # started as `uvicorn app:app` from inside gateway/, with or without the project installed
    sys.path[:0] = [str(Path(__file__).resolve().parent.parent)]

from fastapi import FastAPI

from gateway import __version__
from gateway.api import inspect, status, teach
from gateway.api.errors import install_error_handlers
from gateway.api.middleware import BodyLimitMiddleware, RequestIdMiddleware
from gateway.services import create_services
from gateway.settings import Settings

_DESCRIPTION = """\
Visual inspection by anomaly, learning from good parts only: PatchCore on DINOv2 tokens.

1. `POST /fit_ok` OK images of an ROI. 2. `POST /calibrate_ng` fixes its threshold. 3. `POST /infer` inspects.

Every error is `{"error": {"code", "message", "hint"}}`. The codes stand with the endpoints; beside those there are
`not_found` (404), `method_not_allowed` (405) and `internal` (500, a fault of the gateway's own).

Every answer carries `X-Request-ID`, those of `/infer` and
`/fit_ok` a `Server-Timing` header with milliseconds by stage.
"""


def create_app(settings: Settings | None = None) -> FastAPI:
    """Build the application; the engine starts with it, not before."""
    services = create_services(settings or Settings())

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        await services.engine.start()
        warming = asyncio.create_task(services.banks.warm(), name="warm banks")
        try:
            yield
        finally:
            warming.cancel()
            await asyncio.gather(warming, return_exceptions=True)
            await services.banks.close()
            await services.engine.close()

    app = FastAPI(title="PatchCore gateway", version=__version__, description=_DESCRIPTION, lifespan=lifespan)
    app.state.services = services
    for api in (inspect, teach, status):
        app.include_router(api.router)
    install_error_handlers(app)
    app.add_middleware(BodyLimitMiddleware, max_bytes=services.settings.max_body_bytes)
    app.add_middleware(RequestIdMiddleware)
    return app


app = create_app()
