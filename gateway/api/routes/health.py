"""``GET /health`` and ``GET /ready``."""

import asyncio

from anyio import to_thread
from fastapi import APIRouter, Response

from gateway import __version__
from gateway.api.deps import ServicesDep
from gateway.api.responses import JsonResponse, documented
from gateway.api.schemas.health import HealthAnswer, ReadyAnswer
from gateway.detectors.memory_bank.search.backend import search_name
from gateway.errors import EngineUnavailableError, GatewayError, ShuttingDownError
from gateway.monitoring.storage import write_problem
from gateway.networks.model_description import EXTRACTOR

router = APIRouter(tags=["status"])

_RETRY_AFTER_S = 5


@router.get("/health", response_model=HealthAnswer, summary="Whether the process is alive")
async def health(services: ServicesDep) -> Response:
    """Answer at once, whatever other work is running. `/ready` says whether inspections are possible."""
    status = services.engine.status
    try:
        model = services.engine.model
    except GatewayError:
        model = None
    return JsonResponse(
        {
            "status": "ok",
            "device": services.engine.device,
            "model": EXTRACTOR if model is None else model.extractor,
            "version": __version__,
            "engine": services.settings.engine,
            "runtime": status.runtime,
            "runtime_reason": status.runtime_reason,
            "search": search_name(services.settings.search),
            "model_fingerprint": None if model is None else model.fingerprint,
            "model_weights": None if model is None else model.weights.kind,
        }
    )


@router.get(
    "/ready",
    response_model=ReadyAnswer,
    summary="Whether inspections are possible now",
    responses=documented(EngineUnavailableError, ShuttingDownError),
)
async def ready(services: ServicesDep) -> Response:
    """For load balancers: 200 if inspections are possible, else 503 with the same fields and the reason in `error`.

    Two problems are listed and do not affect readiness, because inspections go on: a models folder that accepts no
    writes (nothing can be learned), and a network that single ROIs need (other ROIs do not need it).
    """
    engine, networks = await asyncio.gather(services.engine.ready(), services.engines.states())
    storage = await to_thread.run_sync(write_problem, services.store)
    process = services.lifecycle.reason
    error: GatewayError | None = None
    if process is not None:
        error = ShuttingDownError(process, retry_after_s=_RETRY_AFTER_S)
    elif not engine.ready:
        error = EngineUnavailableError(engine.reason or "not ready", retry_after_s=_RETRY_AFTER_S)
    return JsonResponse(
        {
            "ready": error is None,
            "engine": "ready" if engine.ready else engine.reason or "not ready",
            "storage": "ready" if storage is None else f"nothing can be learned or calibrated: {storage}",
            "process": process or "ready",
            "networks": [f"{each.name}: {'ready' if each.ready else each.reason or 'not ready'}" for each in networks],
            "input_sizes": await to_thread.run_sync(services.engines.input_sizes),
            "degraded": [
                f"{key}: {'; '.join(found.values())}" for key, found in services.store.faults.degraded().items()
            ],
            "error": None if error is None else error.envelope()["error"],
        },
        status_code=200 if error is None else error.status,
        headers={} if error is None else {"Retry-After": str(error.retry_after_s)},
    )
