"""``POST /calibrate_ng``."""

import functools
import json
from dataclasses import asdict
from typing import Any

from fastapi import APIRouter, Response

from gateway.api.admitted_route import PlaceDep, admitted_by
from gateway.api.deps import CallerDep, ServicesDep
from gateway.api.inputs import parsed_shape
from gateway.api.responses import JsonResponse, documented
from gateway.api.schemas.calibrate import CalibrateAnswer, CalibrateRequest
from gateway.calibration.calibrate import calibrate
from gateway.calibration.calibration_warnings import blind_area
from gateway.calibration.request import CalibrationRequest
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
    UnknownRoiError,
)
from gateway.worker_threads import in_thread

router = APIRouter(tags=["teach"], route_class=admitted_by(lambda services: services.changes))


@router.post(
    "/calibrate_ng",
    response_model=CalibrateAnswer,
    summary="Set the threshold",
    responses=documented(
        InvalidRequestError,
        UnknownRoiError,
        SlowBodyError,
        OverloadedError,
        ShuttingDownError,
        EngineUnavailableError,
        EngineTimeoutError,
        ModelMismatchError,
        ArtifactCorruptError,
        NewerFormatError,
        StorageFullError,
        StorageUnavailableError,
    ),
)
async def calibrate_ng(services: ServicesDep, place: PlaceDep, caller: CallerDep, body: CalibrateRequest) -> Response:
    """Compute and store the thresholds of an ROI from scores of OK images and of at most three NG images.

    Without any score, the images of the ROI decide: the fit's leave-one-out values of those that it learned, the stored
    OK images that it did not, and all stored NG images. With `ng_scores` alone, the fit's leave-one-out scores are the
    OK scores. Given scores and a number as `pixel_threshold` belong to the bank that they were measured with: a
    calibration with them becomes stale at the next fit. One without them is computed again by the next fit, with the
    images that are stored then.
    """
    key = caller.roi(body.role_id, body.roi_id, body.recipe_id)
    if body.peak_threshold is not None:
        _require_alone(body)
    shape = body.shape if body.shape is None or isinstance(body.shape, str) else json.dumps(body.shape)
    parsed, shape_json = parsed_shape(shape)
    request = CalibrationRequest(
        mm_per_px=body.mm_per_px,
        ok_scores=body.ok_scores or (),
        ng_scores=body.ng_scores or (),
        area_mm2_thr=body.area_mm2_thr,
        score_percentile=body.score_percentile,
        false_alarm_rate=body.false_alarm_rate,
        pixel_threshold="peak" if body.pixel_threshold is None else body.pixel_threshold,
        peak_threshold=body.peak_threshold,
        review_threshold=body.review_threshold,
        shape=parsed,
        shape_json=shape_json,
    )

    has_scores = bool(body.ok_scores or body.ng_scores)
    evidence_of = None if has_scores else functools.partial(services.scorer.of_version, key)

    def work() -> dict[str, Any]:
        manifest, calibration, warnings = calibrate(services.store, services.settings, key, request, evidence_of)
        fields = CalibrateAnswer.model_fields.keys() & type(calibration).model_fields.keys()
        return {
            **asdict(key),
            **calibration.model_dump(include=set(fields)),
            "peak_threshold": calibration.pixel_threshold,
            "blind_area_mm2": blind_area(manifest, calibration),
            "warnings": warnings,
        }

    with place.work(key=key):
        return JsonResponse(await in_thread(work, limiter=services.writers))


def _require_alone(body: CalibrateRequest) -> None:
    """Refuse a request that chooses the threshold of the peak in two ways."""
    for name in ("pixel_threshold", "false_alarm_rate", "ok_scores"):
        if name in body.model_fields_set and getattr(body, name):
            raise InvalidRequestError(
                f"peak_threshold and {name}: both choose the threshold of the peak", f"Leave {name} out."
            )
