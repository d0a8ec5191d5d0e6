"""``GET /metrics`` for Prometheus, and ``GET /rois/{role}/{roi}/drift`` for whoever wants to know why it alarms."""

from dataclasses import asdict
from typing import Any

from anyio import to_thread
from fastapi import APIRouter, Request, Response
from prometheus_client.exposition import choose_encoder

from gateway.api.deps import CallerDep, ServicesDep
from gateway.api.fields import RoiId, RoleId
from gateway.api.responses import JsonResponse, documented
from gateway.api.schemas.drift import DriftAnswer
from gateway.errors import ArtifactCorruptError, InvalidRequestError, NewerFormatError, UnknownRoiError
from gateway.monitoring import metrics
from gateway.monitoring.drift import histogram
from gateway.process.services import Services
from gateway.store.roi_key import RoiKey

router = APIRouter(tags=["status"])


@router.get("/metrics", summary="For Prometheus", response_class=Response)
async def scrape(request: Request, services: ServicesDep) -> Response:
    """Metrics of every worker of this gateway, in Prometheus's text format or OpenMetrics, as the scraper asks."""
    encode, content_type = choose_encoder(request.headers.get("accept", ""))
    body = await to_thread.run_sync(lambda: encode(metrics.registry(services.roi_metrics)))
    return Response(body, headers={"Content-Type": content_type})


@router.get(
    "/rois/{role_id}/{roi_id}/drift",
    response_model=DriftAnswer,
    summary="Whether what is inspected still looks like what was learned",
    responses=documented(InvalidRequestError, UnknownRoiError, ArtifactCorruptError, NewerFormatError),
)
async def drift(services: ServicesDep, caller: CallerDep, role_id: RoleId, roi_id: RoiId) -> Response:
    """Recent inspections of this gateway's host with the version in use, against the OK images that it learned.

    Scores of images judged OK are compared with the fit's leave-one-out scores, which run a little higher than those
    of unseen images: `ks_up` says that scores rose, `ks` counts a fall as well. Brightness and sharpness are compared
    with those of the OK images, in their standard deviations. `alarms` names what chance does not explain. What cannot
    be said from too few samples is null, and `reason` says so.
    """
    return JsonResponse(await to_thread.run_sync(drift_of, services, caller.roi(role_id, roi_id)))


def drift_of(services: Services, key: RoiKey) -> dict[str, Any]:
    """The body of `GET /rois/{role}/{roi}/drift`."""
    manifest, _ = services.store.served_manifest(key)
    calibration = services.store.calibration(key, manifest).calibration
    recent = services.drift.recent(key, manifest)
    measured = services.roi_metrics.drift(key, manifest, calibration)
    return {
        **asdict(key),
        "version": manifest.version,
        "window": services.settings.drift_window,
        **asdict(measured),
        "since": None if not len(recent) else float(recent.time[0]),
        "until": None if not len(recent) else float(recent.time[-1]),
        "histogram": asdict(histogram(recent, manifest)),
    }
