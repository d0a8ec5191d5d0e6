"""``POST /fit_ok``, ``POST /calibrate_ng`` and ``DELETE /rois/{role}/{roi}``: what changes an ROI."""

from dataclasses import asdict
from typing import Annotated, Any

from anyio import to_thread
from fastapi import APIRouter, Form, Request, Response
from pydantic import Field

from gateway.api.deps import ServicesDep, parsed_shape, read_image
from gateway.api.disconnect import while_connected
from gateway.api.fields import FormMmPerPx, FormRoi, FormRole, FormShape, Images, Number
from gateway.api.responses import JsonResponse, documented
from gateway.api.schemas import CalibrateAnswer, CalibrateRequest, Deleted, FitAnswer
from gateway.calibrating import calibrate
from gateway.errors import (
    ArtifactCorruptError,
    EngineTimeoutError,
    EngineUnavailableError,
    InvalidRequestError,
    ModelMismatchError,
    OverloadedError,
    StorageFullError,
    TooLargeError,
    UnknownRoiError,
    UnsupportedImageError,
)
from gateway.fitting import FitRequest, FitResult
from gateway.roi_key import RoiKey
from gateway.storage import ScoreSummary

router = APIRouter(tags=["teach"])


@router.post(
    "/fit_ok",
    response_model=FitAnswer,
    summary="Learn from OK images",
    responses=documented(
        InvalidRequestError,
        TooLargeError,
        UnsupportedImageError,
        OverloadedError,
        EngineUnavailableError,
        EngineTimeoutError,
        ModelMismatchError,
        ArtifactCorruptError,
        StorageFullError,
    ),
)
async def fit_ok(
    request: Request,
    services: ServicesDep,
    role_id: FormRole,
    roi_id: FormRoi,
    mm_per_px: FormMmPerPx,
    images: Images,
    shape: FormShape = None,
    coreset_rate: Annotated[
        Number | None, Form(), Field(gt=0, le=1, description="share of the tokens kept, usually 0.01 to 0.05")
    ] = None,
    seed: Annotated[int | None, Form(ge=0, lt=2**32, description="of the coreset's first centre")] = None,
) -> Response:
    """Add images to the OK set of an ROI and build its memory bank anew over all of them.

    An image is known by the SHA-256 of its bytes: sent again, it is counted once. `shape` is where the part is, for
    the leave-one-out scores of these images; the bank learns the whole image.
    """
    parsed, warnings = parsed_shape(shape)
    key = RoiKey(role_id, roi_id)
    if not any(upload.filename or upload.size for upload in images):
        raise InvalidRequestError("images: no file was sent", "Send one or more image files in parts named 'images'.")
    if len(images) > services.settings.max_fit_images:
        raise TooLargeError(
            f"images: {len(images)} in one request; at most {services.settings.max_fit_images} are served"
        )
    with services.fits.admit():
        files = [
            (upload.filename or f"image {i}", await read_image(upload, services.settings))
            for i, upload in enumerate(images, 1)
        ]
        fit = FitRequest(
            key=key,
            images=files,
            mm_per_px=mm_per_px,
            shape=parsed,
            shape_json=None if parsed is None else shape,
            coreset_rate=coreset_rate,
            seed=seed,
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
        "warnings": result.warnings,
    }


@router.post(
    "/calibrate_ng",
    response_model=CalibrateAnswer,
    summary="Fix the threshold",
    responses=documented(InvalidRequestError, UnknownRoiError, OverloadedError, ArtifactCorruptError, StorageFullError),
)
async def calibrate_ng(services: ServicesDep, body: CalibrateRequest) -> Response:
    """Fix and store the threshold of an ROI from scores of OK images and of at most three NG images."""
    key = RoiKey(body.role_id, body.roi_id)
    calibration, warnings = await to_thread.run_sync(
        lambda: calibrate(
            services.store,
            services.settings,
            key,
            ok_scores=body.ok_scores,
            ng_scores=body.ng_scores,
            mm_per_px=body.mm_per_px,
            area_mm2_thr=body.area_mm2_thr,
            score_percentile=body.score_percentile,
        )
    )
    fields = CalibrateAnswer.model_fields.keys() & calibration.model_dump().keys()
    return JsonResponse(
        {
            "role_id": key.role_id,
            "roi_id": key.roi_id,
            **calibration.model_dump(include=set(fields)),
            "warnings": warnings,
        }
    )


@router.delete(
    "/rois/{role_id}/{roi_id}",
    response_model=Deleted,
    summary="Forget an ROI",
    responses=documented(InvalidRequestError, UnknownRoiError, OverloadedError, StorageFullError),
)
async def delete_roi(services: ServicesDep, role_id: str, roi_id: str) -> Response:
    """Remove an ROI with its OK images, memory banks and calibration."""
    key = RoiKey(role_id, roi_id)

    def delete() -> None:
        services.store.current(key)
        with services.store.lock(key, services.settings.fit_lock_timeout_s):
            services.store.delete(key)

    await to_thread.run_sync(delete)
    return JsonResponse({**asdict(key), "deleted": True})
