"""``GET /rois/{role}/{roi}/report``."""

from dataclasses import asdict
from datetime import UTC, datetime
from typing import Annotated, Any, Literal

import numpy as np
from anyio import to_thread
from fastapi import APIRouter, Query, Request, Response
from fastapi.responses import HTMLResponse
from numpy.typing import NDArray

from gateway import __version__
from gateway.api.answers.drift import drift_body
from gateway.api.answers.roi import roi_body
from gateway.api.deps import CallerDep, ServicesDep
from gateway.api.fields import OR_NULL, RoiId, RoleId
from gateway.api.responses import JsonResponse, documented
from gateway.api.schemas.report import ReportAnswer
from gateway.api.strict_route import StrictRoute
from gateway.errors import (
    ArtifactCorruptError,
    InvalidRequestError,
    NewerFormatError,
    StorageUnavailableError,
    UnknownRoiError,
)
from gateway.images.decoding import Limits
from gateway.monitoring.drift.histogram import peak_histogram
from gateway.monitoring.drift.measure import MIN_SAMPLES
from gateway.monitoring.report import page
from gateway.process.services import Services
from gateway.store.manifest import Manifest
from gateway.store.roi_key import RoiKey

router = APIRouter(tags=["status"], route_class=StrictRoute)

_AUDIT_ENTRIES = 50
_PAGE_POLICY = "default-src 'none'; style-src 'unsafe-inline'; img-src data:; frame-ancestors 'none'; base-uri 'none'"


@router.get(
    "/rois/{role_id}/{roi_id}/report",
    response_model=ReportAnswer,
    summary="Report of an ROI",
    responses={
        200: {"content": {"text/html": {}}, "description": "A self-contained page, or the same figures as JSON"},
        **documented(
            InvalidRequestError, UnknownRoiError, ArtifactCorruptError, NewerFormatError, StorageUnavailableError
        ),
    },
)
async def report(
    request: Request,
    services: ServicesDep,
    caller: CallerDep,
    role_id: RoleId,
    roi_id: RoiId,
    form: Annotated[
        Literal["html", "json"] | None,
        OR_NULL,
        Query(alias="format", description="html or json; without it, as the Accept header asks, and html by default"),
    ] = None,
) -> Response:
    """Return the OK images, bank, scores, calibration, spatial weights, drift, versions and audit trail on one page.

    The page loads nothing from elsewhere and can be printed. The figures are those of `/rois/{role}/{roi}`, `/drift`
    and `/audit`.
    """
    key = caller.roi(role_id, roi_id)
    roi = await services.banks.get(key)
    figures, manifest = await to_thread.run_sync(_figures, services, key)
    accepted = request.headers.get("accept", "")
    if form == "json" or (form is None and "application/json" in accepted and "text/html" not in accepted):
        return JsonResponse(figures)
    # If the version in use is damaged, an older version is loaded. Its weights do not belong in this report.
    weights = roi.loaded.weights if roi.loaded.manifest.version == manifest.version else None
    html = await to_thread.run_sync(_page, services, key, manifest, weights, figures)
    return HTMLResponse(html, headers={"Content-Security-Policy": _PAGE_POLICY})


def _figures(services: Services, key: RoiKey) -> tuple[dict[str, Any], Manifest]:
    """Return every figure of the report, and the manifest of its images."""
    detail, manifest = roi_body(services, key)
    figures = {
        **asdict(key),
        "made_at": datetime.now(UTC).isoformat(timespec="seconds"),
        "gateway": __version__,
        "roi": detail,
        "bank": manifest.model_dump(include={"extractor", "token_hw", "dim", "k", "p_score", "n_tokens_total"}),
        "peaks": _peaks(services, key, manifest),
        "drift": drift_body(services, key),
        "drift_needs": MIN_SAMPLES,
        "audit": services.store.audit.read(key, _AUDIT_ENTRIES),
    }
    return figures, manifest


def _peaks(services: Services, key: RoiKey, manifest: Manifest) -> dict[str, Any] | None:
    calibration = services.store.calibration(key, manifest).calibration
    if calibration is None or not calibration.ok_peaks:
        return None
    counted = peak_histogram(calibration.ok_peaks)
    return {"edges": counted.edges.tolist(), "ok_images": counted.ok_images.tolist()}


def _page(
    services: Services,
    key: RoiKey,
    manifest: Manifest,
    weights: NDArray[np.float32] | None,
    figures: dict[str, Any],
) -> str:
    settings = services.settings
    shown = page.pictures(
        services.store.ok(key),
        manifest,
        page.sheet_order(figures["roi"]["images"]),
        weights,
        Limits(settings.max_image_bytes, settings.max_image_pixels),
    )
    return page.render(figures, shown)
