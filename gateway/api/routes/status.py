"""``GET /health``, ``/ready`` and ``/rois``: what there is and how it does."""

import asyncio
from dataclasses import asdict
from typing import Annotated, Any

from anyio import to_thread
from fastapi import APIRouter, Query, Response

from gateway import __version__
from gateway.api.deps import CallerDep, ServicesDep
from gateway.api.fields import RoiId, RoleId
from gateway.api.responses import JsonResponse, documented
from gateway.api.schemas.status import (
    AuditAnswer,
    CalibrationSummary,
    ExcludedImageAnswer,
    HealthAnswer,
    ReadyAnswer,
    RoiDetail,
    RoiList,
    RoiSummary,
)
from gateway.api.security.keys import Caller
from gateway.calibration.calibrate import blind_area, blind_area_warning
from gateway.detectors.memory_bank.search.backend import search_name
from gateway.errors import ArtifactCorruptError, GatewayError, InvalidRequestError, NewerFormatError, UnknownRoiError
from gateway.inspection.answer_warnings import WEIGHTS_STALE
from gateway.learning.suspects import find_suspects, robust_z
from gateway.networks.model_description import EXTRACTOR
from gateway.process.services import Services
from gateway.store.artifact_store import ArtifactStore
from gateway.store.manifest import Calibration, Manifest, ScoreSummary
from gateway.store.roi_key import RoiKey

router = APIRouter(tags=["status"])


@router.get("/health", response_model=HealthAnswer, summary="Whether the process is alive")
async def health(services: ServicesDep) -> Response:
    """Answer at once, whatever else is at work; `/ready` says whether inspections can be served."""
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
            "search": search_name(services.settings.search),
            "model_fingerprint": None if model is None else model.fingerprint,
            "model_weights": None if model is None else model.weights.kind,
        }
    )


@router.get(
    "/ready",
    response_model=ReadyAnswer,
    summary="Whether inspections can be served now",
    responses={503: {"model": ReadyAnswer, "description": "not now, and why"}},
)
async def ready(services: ServicesDep) -> Response:
    """For load balancers: 200 when the engine answers and results can be stored, else 503 with the reason.

    A network that a single version brings along is told of, and makes nothing unready: other ROIs do without it.
    """
    engine, networks = await asyncio.gather(services.engine.ready(), services.engines.states())
    storage = await to_thread.run_sync(_storage_reason, services.store)
    process = services.lifecycle.reason
    is_ready = engine.ready and storage is None and process is None
    return JsonResponse(
        {
            "ready": is_ready,
            "engine": "ready" if engine.ready else engine.reason or "not ready",
            "storage": storage or "ready",
            "process": process or "ready",
            "networks": [f"{each.name}: {'ready' if each.ready else each.reason or 'not ready'}" for each in networks],
            "degraded": [
                f"{key}: {'; '.join(found.values())}" for key, found in services.store.faults.degraded().items()
            ],
        },
        status_code=200 if is_ready else 503,
        headers={} if is_ready else {"Retry-After": "5"},
    )


@router.get("/rois", response_model=RoiList, summary="What is fitted")
async def rois(services: ServicesDep, caller: CallerDep) -> Response:
    """Every ROI that the key is for, with its counts, version and calibration."""
    return JsonResponse(await to_thread.run_sync(_list, services, caller))


@router.get(
    "/rois/{role_id}/{roi_id}",
    response_model=RoiDetail,
    summary="What an ROI learned from",
    responses=documented(InvalidRequestError, UnknownRoiError, ArtifactCorruptError, NewerFormatError),
)
async def roi(services: ServicesDep, caller: CallerDep, role_id: RoleId, roi_id: RoiId) -> Response:
    """One ROI with its OK images and their leave-one-out scores."""
    detail, _ = await to_thread.run_sync(detail_and_manifest, services, caller.roi(role_id, roi_id))
    return JsonResponse(detail)


@router.get(
    "/rois/{role_id}/{roi_id}/audit",
    response_model=AuditAnswer,
    summary="Who changed what of an ROI",
    responses=documented(InvalidRequestError, UnknownRoiError),
)
async def audit(
    services: ServicesDep,
    caller: CallerDep,
    role_id: RoleId,
    roi_id: RoiId,
    limit: Annotated[int, Query(ge=1, le=10_000, description="newest entries")] = 100,
) -> Response:
    """Every fit, publication, calibration, rollback and deletion, newest first; kept when the ROI is deleted."""
    key = caller.roi(role_id, roi_id)
    entries = await to_thread.run_sync(services.store.audit.read, key, limit)
    if not entries and not await to_thread.run_sync(services.store.is_fitted, key):
        raise UnknownRoiError(f"{key} was never fitted")
    return JsonResponse({**asdict(key), "entries": entries})


def _storage_reason(store: ArtifactStore) -> str | None:
    try:
        store.check_writable()
    except (GatewayError, OSError) as error:
        return str(error)
    return None


def _list(services: Services, caller: Caller) -> dict[str, Any]:
    summaries, unreadable = [], []
    for key in filter(caller.sees, services.store.rois()):
        try:
            manifest, calibration, damaged = _read(services.store, key)
        except UnknownRoiError:
            continue  # deleted since it was listed
        except (ArtifactCorruptError, NewerFormatError) as error:
            unreadable.append(error.message)
        else:
            summaries.append(_summary(services, key, manifest, calibration, damaged).model_dump())
    return {"rois": summaries, "unreadable": unreadable}


def _read(store: ArtifactStore, key: RoiKey) -> tuple[Manifest, Calibration | None, list[str]]:
    manifest, damaged = store.served_manifest(key)
    stored = store.calibration(key, manifest)
    found = [*damaged, stored.damaged, *store.faults.degraded().get(key, {}).values()]
    return manifest, stored.calibration, list(dict.fromkeys(what for what in found if what))


def _summary(
    services: Services, key: RoiKey, manifest: Manifest, calibration: Calibration | None, damaged: list[str]
) -> RoiSummary:
    stale = calibration is not None and calibration.is_stale(manifest)
    weights_stale = services.weighting.is_stale(key, manifest.spatial_weights)
    warnings = [f"damaged: {each}" for each in damaged]
    if calibration is not None:
        warnings += blind_area_warning(manifest, calibration)
        if stale:
            warnings.append(f"the threshold was calibrated for version {calibration.version}: calibrate again")
    if weights_stale:
        warnings.append(WEIGHTS_STALE)
    return RoiSummary(
        role_id=manifest.role_id,
        roi_id=manifest.roi_id,
        version=manifest.version,
        created_at=manifest.created_at,
        detector=manifest.detector,
        n_ok_total=len(manifest.images),
        n_embeddings=manifest.n_embeddings,
        coreset_rate_applied=manifest.coreset_rate_applied,
        mm_per_px=manifest.mm_per_px,
        checksum=manifest.checksum,
        model_fingerprint=manifest.model_fingerprint,
        ok_scores=ScoreSummary.of(list(manifest.ok_scores)),
        n_ok_excluded=len(manifest.excluded),
        n_suspects=len(find_suspects(manifest.ok_scores)),
        spatial_weights=manifest.spatial_weights,
        weights_stale=weights_stale,
        blind_area_mm2=blind_area(manifest, calibration),
        calibration=None
        if calibration is None
        else CalibrationSummary(
            **calibration.model_dump(include=CalibrationSummary.model_fields.keys() - {"stale"}), stale=stale
        ),
        degraded=bool(damaged),
        warnings=warnings,
    )


def detail_and_manifest(services: Services, key: RoiKey) -> tuple[dict[str, Any], Manifest]:
    """The body of `GET /rois/{role}/{roi}`, and the manifest that it tells of."""
    manifest, calibration, damaged = _read(services.store, key)
    scores = manifest.ok_scores or (None,) * len(manifest.images)
    z = robust_z(manifest.ok_scores).tolist() if manifest.ok_scores else [None] * len(manifest.images)
    suspects = {suspect.index for suspect in find_suspects(manifest.ok_scores)}
    detail = {
        **_summary(services, key, manifest, calibration, damaged).model_dump(),
        "covering_radius": manifest.covering_radius,
        "seed": manifest.seed,
        "heatmap_max": manifest.heatmap_max,
        "versions": [
            {
                "version": kept.version,
                "created_at": kept.created_at,
                "detector": kept.detector,
                "n_ok": len(kept.images),
                "n_embeddings": kept.n_embeddings,
                "current": kept.version == manifest.version,
            }
            for kept in services.store.manifests(key)
        ],
        "images": [
            {
                **image.model_dump(include={"sha256", "file_name", "width", "height", "added_in"}),
                "score": scores[i],
                "robust_z": z[i],
                "suspect": i in suspects,
            }
            for i, image in enumerate(manifest.images)
        ],
        "excluded_images": [
            image.model_dump(include=set(ExcludedImageAnswer.model_fields)) for image in manifest.excluded
        ],
    }
    return detail, manifest
