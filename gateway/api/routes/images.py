"""``/rois/{role}/{roi}/ok``: the OK images of an ROI."""

from fastapi import APIRouter, Response

from gateway.api.admitted_route import PlaceDep, admitted_by
from gateway.api.answers.fit import fit_body
from gateway.api.deps import CallerDep, ServicesDep
from gateway.api.fields import RoiId, RoleId
from gateway.api.responses import JsonResponse, documented
from gateway.api.schemas.fit import RemovedAnswer
from gateway.errors import (
    ArtifactCorruptError,
    EngineTimeoutError,
    EngineUnavailableError,
    InvalidRequestError,
    ModelMismatchError,
    NewerFormatError,
    OverloadedError,
    ShuttingDownError,
    SlowBodyError,
    StorageFullError,
    StorageUnavailableError,
    TrainedOfflineError,
    UnknownImageError,
    UnknownRoiError,
)

router = APIRouter(tags=["teach"], route_class=admitted_by(lambda services: services.fits))


@router.delete(
    "/rois/{role_id}/{roi_id}/ok/{sha256}",
    response_model=RemovedAnswer,
    summary="Remove one OK image",
    responses=documented(
        InvalidRequestError,
        UnknownRoiError,
        UnknownImageError,
        SlowBodyError,
        OverloadedError,
        ShuttingDownError,
        EngineUnavailableError,
        EngineTimeoutError,
        ModelMismatchError,
        TrainedOfflineError,
        ArtifactCorruptError,
        NewerFormatError,
        StorageFullError,
        StorageUnavailableError,
    ),
)
async def delete_ok_image(
    services: ServicesDep, place: PlaceDep, caller: CallerDep, role_id: RoleId, roi_id: RoiId, sha256: str
) -> Response:
    """Remove an OK image from an ROI, learned or excluded, and rebuild the memory bank from the other images.

    The last image cannot be removed. Delete the ROI instead.
    """
    key = caller.roi(role_id, roi_id)
    memory = await services.fitting.memory_needed(key, [], None)
    with place.work(memory=memory):
        result = await services.fitting.remove(key, sha256.lower())
    return JsonResponse(
        {**fit_body(result), "removed": sha256.lower()}, headers={"Server-Timing": result.times.header()}
    )
