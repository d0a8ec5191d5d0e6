"""The ASGI application: `create_app(settings)`, and ``app`` for ``uvicorn gateway.app:app``."""

import asyncio
import logging
import os
import sys
import threading
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

if not __package__:  # started as `uvicorn app:app` inside gateway/, with or without the project installed
    sys.path[:0] = [str(Path(__file__).resolve().parent.parent)]

from anyio import to_thread
from fastapi import FastAPI
from starlette.middleware.cors import CORSMiddleware

from gateway import __version__
from gateway.api.error_handlers import install_error_handlers
from gateway.api.middleware.body_limit import BodyLimitMiddleware
from gateway.api.middleware.observe import ObserveMiddleware
from gateway.api.middleware.request_id import RequestIdMiddleware
from gateway.api.middleware.request_target import HeadMiddleware, RequestTargetMiddleware
from gateway.api.middleware.security_headers import SecurityHeadersMiddleware
from gateway.api.openapi.application import DocumentedApp
from gateway.api.routes import (
    calibrate,
    docs,
    drift,
    fit,
    health,
    images,
    infer,
    inspections,
    page,
    peaks,
    report,
    rois,
    stored_images,
)
from gateway.api.routes import metrics as metrics_route
from gateway.api.security.access import AccessMiddleware
from gateway.api.security.keys import read_keys
from gateway.gui.application import create_gui, gui_routes
from gateway.gui.dispatch import GuiDispatchMiddleware
from gateway.monitoring import logs, metrics, tracing
from gateway.process.background import prepare_storage, remove_old_heatmaps, report_state, warm
from gateway.process.services import create_services
from gateway.setting_names import environment_warnings
from gateway.settings import Settings
from gateway.store.cleanup import sweep

log = logging.getLogger(__name__)

_DESCRIPTION = """\
Visual inspection that learns from OK images only: PatchCore on DINOv2 tokens.

1. `POST /fit_ok` learns the OK images of an ROI. 2. `POST /calibrate_ng` sets its threshold. 3. `POST /infer` inspects.

Every error is `{"error": {"code", "message", "hint"}}`. Each endpoint lists its codes. Any endpoint may also return
`not_found` (404), `method_not_allowed` (405) and `internal` (500, an error in the gateway itself).

If the gateway has API keys, every endpoint except `/health`, `/ready` and this document needs one:
`Authorization: Bearer <key>`.

Every answer has the header `X-Request-ID`. Answers of `/infer` and `/fit_ok` also have `Server-Timing`, with
milliseconds by stage.
"""


def create_app(settings: Settings | None = None) -> FastAPI:
    """Build the application. The engine starts when the application starts.

    Args:
        settings: settings of the gateway; by default those of the environment.

    Raises:
        KeyListError: the API keys are invalid.
        RoiConfigError: the file of manual boxes is invalid.
        CudaUnavailableError: GATEWAY_DEVICE or GATEWAY_RUNTIME asks for a GPU that cannot be used.
    """
    settings = settings or Settings()
    keys = read_keys(settings.api_keys, settings.api_keys_file)
    services = create_services(settings)

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        if not logging.getLogger().handlers:  # started by uvicorn, not by python -m gateway
            logs.configure(services.settings)
        for warning in environment_warnings(os.environ, Settings.names()):
            log.warning("%s", warning)
        tracing.start(services.settings)
        await prepare_storage(services)
        await services.engine.start()
        reporting = asyncio.create_task(report_state(services), name="report")
        warming = asyncio.create_task(warm(services), name="warm banks")
        stopping = threading.Event()
        sweeping = asyncio.create_task(to_thread.run_sync(sweep, services.store, stopping.is_set), name="sweep")
        heatmaps = asyncio.create_task(remove_old_heatmaps(services, stopping.is_set), name="old heatmaps")
        try:
            yield
        finally:
            stopping.set()
            for task in (warming, reporting, heatmaps):
                task.cancel()
            await asyncio.gather(warming, reporting, sweeping, heatmaps, return_exceptions=True)
            await services.banks.close()
            await services.engines.close()
            services.recent_inspections.close()
            metrics.forget_worker()
            tracing.stop()

    app = DocumentedApp(
        title="PatchCore gateway",
        version=__version__,
        description=_DESCRIPTION,
        lifespan=lifespan,
        docs_url=None,
        redoc_url=None,
        redirect_slashes=False,
    )
    app.state.services = services
    routers = (
        infer.router,
        fit.router,
        fit.progress,
        peaks.router,
        images.router,
        stored_images.uploads,
        stored_images.router,
        stored_images.changes,
        calibrate.router,
        rois.router,
        rois.changes,
        health.router,
        metrics_route.router,
        drift.router,
        inspections.router,
        report.router,
        docs.router,
        page.router,
    )
    for router in routers:
        app.include_router(router)
    install_error_handlers(app)
    logs.mask_access_log()
    # The middleware that is added last sees a request first.
    app.add_middleware(HeadMiddleware)
    app.add_middleware(
        BodyLimitMiddleware,
        max_bytes=settings.max_body_bytes,
        max_json_bytes=settings.max_json_bytes,
        forms=(
            ("POST", "/infer"),
            ("POST", "/infer_batch"),
            ("POST", "/fit_ok"),
            ("POST", "/rois/{role_id}/{roi_id}/images"),
        ),
    )
    app.add_middleware(AccessMiddleware, keys=keys, allow_anonymous=settings.allow_anonymous, origins=settings.origins)
    if settings.origins:
        app.add_middleware(
            CORSMiddleware,
            allow_origins=settings.origins,
            allow_methods=("GET", "POST", "PATCH", "DELETE"),
            allow_headers=("Authorization", "X-Recipe-Id", "X-Request-ID"),
            expose_headers=("Retry-After", "Server-Timing", "X-Request-ID"),
        )
    app.add_middleware(RequestIdMiddleware)
    routes = [route for router in routers for route in router.routes]
    if settings.gui_dialect:
        app.add_middleware(
            GuiDispatchMiddleware,
            gui=create_gui(services, keys),
            at_root=settings.gui_root,
            min_upload_bytes_s=settings.min_upload_bytes_s,
        )
        routes += gui_routes(at_root=settings.gui_root)
    app.add_middleware(ObserveMiddleware, routes=routes)
    app.add_middleware(SecurityHeadersMiddleware)
    app.add_middleware(RequestTargetMiddleware)
    return app


app = create_app()
