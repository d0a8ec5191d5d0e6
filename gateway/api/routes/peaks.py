"""``GET /rois/{role}/{roi}/peaks`` and ``…/comparison``: what versions say of the images of an ROI."""

from dataclasses import asdict
from typing import Annotated, Any

from fastapi import APIRouter, Query, Response
from pydantic import Field

from gateway.api.answers.peaks import comparison_body, peaks_body
from gateway.api.deps import CallerDep, ServicesDep
from gateway.api.fields import OR_NULL, AreaMm2, MmPerPx, Percentile, RoiId, RoleId
from gateway.api.inputs import parsed_shape
from gateway.api.responses import JsonResponse, documented
from gateway.api.schemas.peaks import ComparisonAnswer, ImagePeaksAnswer
from gateway.api.strict_route import StrictRoute
from gateway.calibration.request import CalibrationRequest, Parameters
from gateway.errors import (
    ArtifactCorruptError,
    EngineTimeoutError,
    EngineUnavailableError,
    InvalidRequestError,
    ModelMismatchError,
    NewerFormatError,
    UnknownRoiError,
    UnknownVersionError,
)
from gateway.worker_threads import in_thread

router = APIRouter(tags=["teach"], route_class=StrictRoute)

Version = Annotated[int, Field(ge=1, lt=2**31)]
_ERRORS = (
    InvalidRequestError,
    UnknownRoiError,
    ModelMismatchError,
    EngineUnavailableError,
    EngineTimeoutError,
    ArtifactCorruptError,
    NewerFormatError,
)


@router.get(
    "/rois/{role_id}/{roi_id}/peaks",
    operation_id="getPeaks",
    response_model=ImagePeaksAnswer,
    summary="Peaks of the images of an ROI",
    responses=documented(*_ERRORS),
)
async def peaks(
    services: ServicesDep,
    caller: CallerDep,
    role_id: RoleId,
    roi_id: RoiId,
    mm_per_px: Annotated[
        MmPerPx | None, OR_NULL, Query(description="that of the calibration, else of the fit, without one")
    ] = None,
    area_mm2_thr: Annotated[
        AreaMm2 | None, OR_NULL, Query(description="that of the calibration, else the setting, without one")
    ] = None,
    score_percentile: Annotated[Percentile | None, OR_NULL, Query()] = None,
    shape: Annotated[
        str | None, OR_NULL, Query(description="JSON; that of the calibration, else of the images, without one")
    ] = None,
) -> Response:
    """Measure the images of an ROI with the version in use, and say what each threshold of the peak would mean.

    It stores no threshold. `POST /calibrate_ng` with the same parameters and with `peak_threshold` rejects just the
    images whose `level` is at or above it. Tokens of stored images are computed where they are missing.
    """
    key = caller.roi(role_id, roi_id)
    given, _ = parsed_shape(shape)

    def work() -> dict[str, Any]:
        manifest, _ = services.store.served_manifest(key)
        before = services.store.calibration(key, manifest).calibration
        own = None if before is None else before.shape
        scale = mm_per_px or (manifest.mm_per_px if before is None else before.mm_per_px)
        area = before.area_mm2_thr if area_mm2_thr is None and before is not None else area_mm2_thr
        rank = before.score_percentile if score_percentile is None and before is not None else score_percentile
        request = CalibrationRequest(mm_per_px=scale, area_mm2_thr=area, score_percentile=rank)
        parameters = Parameters.of(request, services.settings)
        within = given if given is not None or own is None else parsed_shape(own)[0]
        return peaks_body(manifest, services.peaks.of(key, manifest, parameters, scale, within), parameters, scale)

    return JsonResponse(await in_thread(work, limiter=services.image_readers))


@router.get(
    "/rois/{role_id}/{roi_id}/comparison",
    operation_id="compareVersions",
    response_model=ComparisonAnswer,
    summary="Compare two versions",
    responses=documented(*_ERRORS, UnknownVersionError),
)
async def comparison(
    services: ServicesDep,
    caller: CallerDep,
    role_id: RoleId,
    roi_id: RoiId,
    before: Annotated[Version, Query(description="a kept version")],
    after: Annotated[Version, Query(description="another kept version")],
) -> Response:
    """Judge the images that the ROI has now by two kept versions, and return those with different verdicts.

    Each version judges by its own calibration. An image that a version has learned is measured against its bank
    without the image.
    """
    key = caller.roi(role_id, roi_id)
    found = await in_thread(services.peaks.compared, key, before, after, limiter=services.image_readers)
    return JsonResponse({**asdict(key), **comparison_body(found)})
