"""``/rois``: fitted ROIs, their history, rollback and deletion."""

from dataclasses import asdict
from typing import Annotated, Any

from anyio import to_thread
from fastapi import APIRouter, Query, Response

from gateway.api.admitted_route import PlaceDep, admitted_by
from gateway.api.answers.roi import roi_body, roi_list_body
from gateway.api.deps import CallerDep, ServicesDep
from gateway.api.fields import OR_NULL, EntryCount, RoiId, RoleId
from gateway.api.responses import JsonResponse, documented
from gateway.api.schemas.rois import AuditAnswer, Deleted, RoiDetail, RoiList, RollbackAnswer, RollbackRequest
from gateway.api.strict_route import StrictRoute
from gateway.calibration.calibrate import state_of
from gateway.errors import (
    ArtifactCorruptError,
    InvalidRequestError,
    NewerFormatError,
    OverloadedError,
    ShuttingDownError,
    SlowBodyError,
    StorageFullError,
    StorageUnavailableError,
    UnknownRoiError,
    UnknownVersionError,
)
from gateway.store.rollback import forget, roll_back
from gateway.worker_threads import in_thread

_AUDIT_ENTRIES = 100
"""Entries of the audit trail in an answer by default."""

router = APIRouter(tags=["status"], route_class=StrictRoute)
changes = APIRouter(tags=["teach"], route_class=admitted_by(lambda services: services.changes))


@router.get(
    "/rois",
    operation_id="listRois",
    response_model=RoiList,
    summary="List the fitted ROIs",
    responses=documented(InvalidRequestError, StorageUnavailableError),
)
async def rois(services: ServicesDep, caller: CallerDep) -> Response:
    """List every fitted ROI that the key allows, with its counts, version and calibration.

    `unfitted` lists the ROIs that have stored images and no version yet.

    Without `recipe_id` and `X-Recipe-Id`, the list has the ROIs of all recipes.
    """
    return JsonResponse(await to_thread.run_sync(roi_list_body, services, caller))


@router.get(
    "/rois/{role_id}/{roi_id}",
    operation_id="getRoi",
    response_model=RoiDetail,
    summary="One ROI in detail",
    responses=documented(
        InvalidRequestError, UnknownRoiError, ArtifactCorruptError, NewerFormatError, StorageUnavailableError
    ),
)
async def roi(services: ServicesDep, caller: CallerDep, role_id: RoleId, roi_id: RoiId) -> Response:
    """Return one ROI with its OK images and their leave-one-out scores."""
    detail, _ = await to_thread.run_sync(roi_body, services, caller.roi(role_id, roi_id))
    return JsonResponse(detail)


@router.get(
    "/rois/{role_id}/{roi_id}/audit",
    response_model=AuditAnswer,
    summary="Audit trail of an ROI",
    responses=documented(InvalidRequestError, UnknownRoiError, StorageUnavailableError),
)
async def audit(
    services: ServicesDep,
    caller: CallerDep,
    role_id: RoleId,
    roi_id: RoiId,
    limit: Annotated[
        EntryCount | None, OR_NULL, Query(description="number of newest entries to return")
    ] = _AUDIT_ENTRIES,
) -> Response:
    """Return every fit, publication, calibration, rollback and deletion, newest first. Deletion keeps the trail."""
    key = caller.roi(role_id, roi_id)
    entries = await to_thread.run_sync(services.store.audit.read, key, limit or _AUDIT_ENTRIES)
    if not entries and not await to_thread.run_sync(services.store.is_fitted, key):
        raise UnknownRoiError(f"{key} was never fitted")
    return JsonResponse({**asdict(key), "entries": entries})


@changes.post(
    "/rois/{role_id}/{roi_id}/rollback",
    response_model=RollbackAnswer,
    summary="Return to an earlier version",
    responses=documented(
        InvalidRequestError,
        UnknownRoiError,
        UnknownVersionError,
        SlowBodyError,
        OverloadedError,
        ShuttingDownError,
        ArtifactCorruptError,
        NewerFormatError,
        StorageFullError,
        StorageUnavailableError,
    ),
)
async def rollback(
    services: ServicesDep, place: PlaceDep, caller: CallerDep, role_id: RoleId, roi_id: RoiId, body: RollbackRequest
) -> Response:
    """Use a kept version again, with the threshold that it had when it was last in use. Takes effect at once.

    All files of the version must be undamaged. The next fit builds on this version and gets a new number. Later
    versions are kept, so a rollback can be undone by another rollback.
    """
    key = caller.roi(role_id, roi_id)

    def work() -> dict[str, Any]:
        done = roll_back(services.store, services.settings, key, body.version)
        return {
            **asdict(key),
            "version_before": done.before,
            "version": done.manifest.version,
            "n_ok_total": len(done.manifest.images),
            "calibration": state_of(done.manifest, done.calibration),
            "threshold": None if done.calibration is None else done.calibration.threshold,
            "warnings": done.warnings,
        }

    with place.work(key=key):
        return JsonResponse(await in_thread(work, limiter=services.writers))


@changes.delete(
    "/rois/{role_id}/{roi_id}",
    response_model=Deleted,
    summary="Delete an ROI",
    responses=documented(
        InvalidRequestError,
        UnknownRoiError,
        SlowBodyError,
        OverloadedError,
        ShuttingDownError,
        NewerFormatError,
        StorageFullError,
        StorageUnavailableError,
    ),
)
async def delete_roi(
    services: ServicesDep, place: PlaceDep, caller: CallerDep, role_id: RoleId, roi_id: RoiId
) -> Response:
    """Delete an ROI with its images, versions and calibration."""
    key = caller.roi(role_id, roi_id)

    def delete() -> None:
        if not services.store.exists(key):
            raise UnknownRoiError(f"{key} was never fitted and has no stored images")
        timeout_s = services.settings.fit_lock_timeout_s
        with services.store.lock(key, timeout_s), services.store.image_lock(key, timeout_s):
            forget(services.store, key)
            services.drift.forget(key)
            services.kept.forget(key)

    with place.work(key=key):
        await in_thread(delete, limiter=services.writers)
    return JsonResponse({**asdict(key), "deleted": True})
