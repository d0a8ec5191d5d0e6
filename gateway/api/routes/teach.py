"""``POST /fit_ok``, ``POST /calibrate_ng`` and the ``DELETE``s under ``/rois/{role}/{roi}``: what changes an ROI."""

from dataclasses import asdict
from typing import Annotated, Any

from fastapi import APIRouter, Form, Request, Response
from pydantic import Field

from gateway.api.admitted import PlaceDep, admitted_by
from gateway.api.deps import CallerDep, ServicesDep, image_file, parsed_shape
from gateway.api.disconnect import while_connected
from gateway.api.fields import FormMmPerPx, FormRoi, FormRole, FormShape, Images, Number, RoiId, RoleId
from gateway.api.responses import JsonResponse, documented
from gateway.api.schemas.teach import (
    CalibrateAnswer,
    CalibrateRequest,
    Deleted,
    FitAnswer,
    RemovedAnswer,
    RollbackAnswer,
    RollbackRequest,
)
from gateway.calibration.calibrate import CalibrationRequest, blind_area, calibrate, state_of
from gateway.detectors.spatial_weighting import WeightsMode
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
    TooLargeError,
    TrainedOfflineError,
    UnknownImageError,
    UnknownRoiError,
    UnknownVersionError,
    UnsupportedImageError,
)
from gateway.learning.request import FitRequest, FitResult
from gateway.store.manifest import ScoreSummary
from gateway.store.rollback import forget, roll_back
from gateway.worker_threads import in_thread

fits = APIRouter(tags=["teach"], route_class=admitted_by(lambda services: services.fits))
changes = APIRouter(tags=["teach"], route_class=admitted_by(lambda services: services.changes))


@fits.post(
    "/fit_ok",
    response_model=FitAnswer,
    summary="Learn from OK images",
    responses=documented(
        InvalidRequestError,
        TooLargeError,
        UnsupportedImageError,
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
    ),
)
async def fit_ok(
    request: Request,
    services: ServicesDep,
    caller: CallerDep,
    place: PlaceDep,
    role_id: FormRole,
    roi_id: FormRoi,
    mm_per_px: FormMmPerPx,
    images: Images,
    shape: FormShape = None,
    coreset_rate: Annotated[
        Number | None, Form(), Field(gt=0, le=1, description="share of the tokens kept, usually 0.01 to 0.05")
    ] = None,
    seed: Annotated[int | None, Form(ge=0, lt=2**32, description="of the coreset's first centre")] = None,
    spatial_weights: Annotated[
        WeightsMode | None,
        Form(description="of an ROI without a manual box: variance weighs by the spread of the OK maps"),
    ] = None,
    bit_depth: Annotated[
        int | None,
        Form(
            ge=8,
            le=16,
            description="bits a sample of the camera, for files of more than 8 bits: 12 for values up to 4095; "
            "kept with the ROI",
        ),
    ] = None,
    exclude_suspects: Annotated[
        bool, Form(description="keep images out of the bank that look unlike the others; they are listed as excluded")
    ] = False,
) -> Response:
    """Add images to the OK set of an ROI and build its memory bank anew over all of them.

    An image is known by the SHA-256 of its bytes: sent again, it is counted once. `shape` is where the part is, for
    the leave-one-out scores of these images; the bank learns the whole image. A calibration that rests on nothing but
    the fit's own leave-one-out scores is redone; any other becomes stale.
    """
    parsed, warnings = parsed_shape(shape)
    key = caller.roi(role_id, roi_id)
    if not any(upload.filename or upload.size for upload in images):
        raise InvalidRequestError("images: no file was sent", "Send one or more image files in parts named 'images'.")
    if len(images) > services.settings.max_fit_images:
        raise TooLargeError(
            f"images: {len(images)} in one request; at most {services.settings.max_fit_images} are served"
        )
    with place.work():
        files = [image_file(upload, f"image {i}", services.settings) for i, upload in enumerate(images, 1)]
        fit = FitRequest(
            key=key,
            images=files,
            mm_per_px=mm_per_px,
            shape=parsed,
            shape_json=None if parsed is None else shape,
            coreset_rate=coreset_rate,
            seed=seed,
            spatial_weights=spatial_weights,
            bit_depth=bit_depth,
            exclude_suspects=exclude_suspects,
            warnings=tuple(warnings),
        )
        result = await while_connected(request, services.fitting.fit(fit))
    return JsonResponse(_fit_answer(result), headers={"Server-Timing": result.times.header()})


def _fit_answer(result: FitResult) -> dict[str, Any]:
    manifest = result.manifest
    summary = ScoreSummary.of(list(manifest.ok_scores))
    return {
        "role_id": manifest.role_id,
        "roi_id": manifest.roi_id,
        "n_ok_total": len(manifest.images),
        "n_ok_added": result.n_added,
        "duplicates": result.duplicates,
        "n_embeddings": manifest.n_embeddings,
        "n_tokens_total": manifest.n_tokens_total,
        "coreset_rate": manifest.coreset_rate,
        "coreset_rate_applied": manifest.coreset_rate_applied,
        "covering_radius": manifest.covering_radius,
        "seed": manifest.seed,
        "checksum": manifest.checksum,
        "version": manifest.version,
        "token_shape": manifest.token_hw,
        "ok_scores": None if summary is None else summary.model_dump(),
        "n_ok_excluded": len(manifest.excluded),
        "suspect_images": [
            {
                "sha256": suspect.image.sha256,
                "file_name": suspect.image.file_name,
                "score": suspect.score,
                "robust_z": suspect.robust_z,
                "excluded": suspect.excluded,
            }
            for suspect in result.suspects
        ],
        "spatial_weights": manifest.spatial_weights.model_dump(),
        "calibration": result.calibration,
        "warnings": result.warnings,
    }


@changes.post(
    "/calibrate_ng",
    response_model=CalibrateAnswer,
    summary="Fix the threshold",
    responses=documented(
        InvalidRequestError,
        UnknownRoiError,
        SlowBodyError,
        OverloadedError,
        ShuttingDownError,
        ArtifactCorruptError,
        NewerFormatError,
        StorageFullError,
    ),
)
async def calibrate_ng(services: ServicesDep, place: PlaceDep, caller: CallerDep, body: CalibrateRequest) -> Response:
    """Fix and store the thresholds of an ROI from scores of OK images and of at most three NG images.

    Without `ok_scores`, those count that the fit computed for each OK image against the bank without it. NG scores and
    a number as `pixel_threshold` belong to the bank that they were measured with: with them a calibration becomes stale
    at the next fit, without them it is redone.
    """
    key = caller.roi(body.role_id, body.roi_id)
    request = CalibrationRequest(
        mm_per_px=body.mm_per_px,
        ok_scores=body.ok_scores or (),
        ng_scores=body.ng_scores or (),
        area_mm2_thr=body.area_mm2_thr,
        score_percentile=body.score_percentile,
        false_alarm_rate=body.false_alarm_rate,
        pixel_threshold=body.pixel_threshold,
    )

    def work() -> dict[str, Any]:
        manifest, calibration, warnings = calibrate(services.store, services.settings, key, request)
        fields = CalibrateAnswer.model_fields.keys() & type(calibration).model_fields.keys()
        return {
            **asdict(key),
            **calibration.model_dump(include=set(fields)),
            "blind_area_mm2": blind_area(manifest, calibration),
            "warnings": warnings,
        }

    with place.work():
        return JsonResponse(await in_thread(work, limiter=services.writers))


@changes.post(
    "/rois/{role_id}/{roi_id}/rollback",
    response_model=RollbackAnswer,
    summary="Go back to an earlier version",
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
    ),
)
async def rollback(
    services: ServicesDep, place: PlaceDep, caller: CallerDep, role_id: RoleId, roi_id: RoiId, body: RollbackRequest
) -> Response:
    """Put a version that is kept in use again, with the threshold that it had when it was left, at once.

    Only a version whose files are all whole. The next fit builds on it and takes a new number; versions after it stay
    among those kept, so that a rollback can be taken back in the same way.
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

    with place.work():
        return JsonResponse(await in_thread(work, limiter=services.writers))


@changes.delete(
    "/rois/{role_id}/{roi_id}",
    response_model=Deleted,
    summary="Forget an ROI",
    responses=documented(
        InvalidRequestError,
        UnknownRoiError,
        SlowBodyError,
        OverloadedError,
        ShuttingDownError,
        NewerFormatError,
        StorageFullError,
    ),
)
async def delete_roi(
    services: ServicesDep, place: PlaceDep, caller: CallerDep, role_id: RoleId, roi_id: RoiId
) -> Response:
    """Remove an ROI with its OK images, memory banks and calibration."""
    key = caller.roi(role_id, roi_id)

    def delete() -> None:
        if not services.store.is_fitted(key):
            raise UnknownRoiError(f"{key} was never fitted")
        with services.store.lock(key, services.settings.fit_lock_timeout_s):
            forget(services.store, key)
            services.drift.forget(key)

    with place.work():
        await in_thread(delete, limiter=services.writers)
    return JsonResponse({**asdict(key), "deleted": True})


@fits.delete(
    "/rois/{role_id}/{roi_id}/ok/{sha256}",
    response_model=RemovedAnswer,
    summary="Take one OK image out",
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
    ),
)
async def delete_ok_image(
    services: ServicesDep, place: PlaceDep, caller: CallerDep, role_id: RoleId, roi_id: RoiId, sha256: str
) -> Response:
    """Take an OK image out of an ROI, learned or excluded, and build its memory bank anew over the others.

    The only image cannot be taken out: that is a request to delete the ROI.
    """
    key = caller.roi(role_id, roi_id)
    with place.work():
        result = await services.fitting.remove(key, sha256.lower())
    return JsonResponse(
        {**_fit_answer(result), "removed": sha256.lower()}, headers={"Server-Timing": result.times.header()}
    )
