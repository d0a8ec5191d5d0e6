"""``GET /rois/{role}/{roi}/drift``."""

from anyio import to_thread
from fastapi import APIRouter, Response

from gateway.api.answers.drift import drift_body
from gateway.api.deps import CallerDep, ServicesDep
from gateway.api.fields import RoiId, RoleId
from gateway.api.responses import JsonResponse, documented
from gateway.api.schemas.drift import DriftAnswer
from gateway.api.strict_route import StrictRoute
from gateway.errors import (
    ArtifactCorruptError,
    InvalidRequestError,
    NewerFormatError,
    StorageUnavailableError,
    UnknownRoiError,
)

router = APIRouter(tags=["status"], route_class=StrictRoute)


@router.get(
    "/rois/{role_id}/{roi_id}/drift",
    response_model=DriftAnswer,
    summary="Drift of an ROI",
    responses=documented(
        InvalidRequestError, UnknownRoiError, ArtifactCorruptError, NewerFormatError, StorageUnavailableError
    ),
)
async def drift(services: ServicesDep, caller: CallerDep, role_id: RoleId, roi_id: RoiId) -> Response:
    """Compare recent inspections on this gateway's host with the OK images of the version in use.

    Scores of images judged OK are compared with the fit's leave-one-out scores. These run a little higher than scores
    of unseen images: `ks_up` says that scores rose, `ks` counts a fall as well. Brightness and sharpness are compared
    with those of the OK images, in their standard deviations. `alarms` names what chance does not explain. A value that
    needs more samples is null, and `reason` says so.
    """
    return JsonResponse(await to_thread.run_sync(drift_body, services, caller.roi(role_id, roi_id)))
