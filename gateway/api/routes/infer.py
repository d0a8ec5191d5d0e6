"""``POST /infer``."""

import base64
import json
from dataclasses import asdict
from typing import Annotated, Any

from fastapi import APIRouter, Form, Request, Response, UploadFile
from pydantic import FailFast, Field, TypeAdapter, ValidationError

from gateway.api.admitted import PlaceDep, admitted_by
from gateway.api.deps import CallerDep, ServicesDep, parsed_shape, read_image, require_small
from gateway.api.disconnect import while_connected
from gateway.api.fields import AreaMm2, FormMmPerPx, FormRoi, FormRole, FormShape, Images, Number, OneImage, Percentile
from gateway.api.responses import JsonResponse, documented
from gateway.api.schemas.infer import BatchAnswer, BatchItem, InferAnswer
from gateway.api.security.keys import Caller
from gateway.errors import (
    ArtifactCorruptError,
    EngineTimeoutError,
    EngineUnavailableError,
    GatewayError,
    InvalidRequestError,
    ModelMismatchError,
    NewerFormatError,
    OverloadedError,
    ShuttingDownError,
    SlowBodyError,
    StorageFullError,
    TooLargeError,
    UnknownRoiError,
    UnsupportedImageError,
)
from gateway.inspection.answer import Inspection
from gateway.inspection.request import HeatmapMode, InferRequest
from gateway.monitoring.timing import StageTimes
from gateway.settings import Settings

router = APIRouter(tags=["inspect"], route_class=admitted_by(lambda services: services.inspections))

# One error is told; a list of a million would be a million of them.
_BATCH = TypeAdapter(Annotated[list[BatchItem], FailFast()])


@router.post(
    "/infer",
    response_model=InferAnswer,
    summary="Inspect one image",
    responses=documented(
        InvalidRequestError,
        UnknownRoiError,
        ModelMismatchError,
        TooLargeError,
        UnsupportedImageError,
        SlowBodyError,
        OverloadedError,
        ShuttingDownError,
        EngineUnavailableError,
        EngineTimeoutError,
        ArtifactCorruptError,
        NewerFormatError,
        StorageFullError,
    ),
)
async def infer(
    request: Request,
    services: ServicesDep,
    caller: CallerDep,
    place: PlaceDep,
    role_id: FormRole,
    roi_id: FormRoi,
    mm_per_px: FormMmPerPx,
    image: OneImage,
    shape: FormShape = None,
    k: Annotated[int | None, Form(ge=1, le=100, description="neighbours averaged")] = None,
    p_score: Annotated[Percentile | None, Form(description="percentile of the map that is the score")] = None,
    blur_sigma: Annotated[Number | None, Form(), Field(ge=0, le=20, description="in pixels")] = None,
    area_mm2_thr: Annotated[AreaMm2 | None, Form()] = None,
    heatmap: Annotated[HeatmapMode | None, Form(description="how the heatmap comes back")] = None,
) -> Response:
    """Score an image against the memory bank of its ROI; once calibrated, judge it and cut the regions that are off.

    `verdict` is `ng` when the score is above `threshold`, when a region of the blurred map at or above
    `pixel_threshold` has `area_mm2_thr` or more, or both: `verdict_reason` says which.
    """
    parsed, warnings = parsed_shape(shape)
    key = caller.roi(role_id, roi_id)
    with place.work():
        inspection = InferRequest(
            key=key,
            image=await read_image(image, services.settings),
            image_name=image.filename or "image",
            mm_per_px=mm_per_px,
            shape=parsed,
            k=k,
            p_score=p_score,
            blur_sigma=blur_sigma,
            area_mm2_thr=area_mm2_thr,
            heatmap=heatmap or services.settings.heatmap,
            warnings=tuple(warnings),
        )
        result = await while_connected(request, services.pipeline.infer(inspection))
    return JsonResponse(_answer(result), headers={"Server-Timing": result.times.header()})


@router.post(
    "/infer_batch",
    response_model=BatchAnswer,
    summary="Inspect several ROIs of one part",
    responses=documented(
        InvalidRequestError,
        TooLargeError,
        SlowBodyError,
        OverloadedError,
        ShuttingDownError,
        EngineUnavailableError,
        EngineTimeoutError,
        StorageFullError,
    ),
)
async def infer_batch(
    request: Request,
    services: ServicesDep,
    caller: CallerDep,
    place: PlaceDep,
    items: Annotated[
        str,
        Form(
            description="JSON array: for each image, in the order of `images`, an object with the fields of /infer",
            examples=['[{"role_id": "disc-front", "roi_id": "pad-1", "mm_per_px": 0.2}]'],
        ),
    ],
    images: Images,
) -> Response:
    """Inspect several images, each with its own ROI and parameters, in one batch of the network.

    The results stand in the order of `items`. What is wrong with one image or ROI is told in its place, as the error
    envelope that /infer would answer, and does not fail the others.
    """
    batch = _items(items, len(images))
    if len(batch) != len(images):
        raise InvalidRequestError(f"items: {len(batch)} of them, but {len(images)} images")
    if len(batch) > services.settings.max_batch_images:
        raise TooLargeError(
            f"images: {len(batch)} in one request; at most {services.settings.max_batch_images} are served"
        )
    with place.work(len(batch)):
        pairs = zip(batch, images, strict=True)
        read = [await _settled_item(item, image, caller, services.settings) for item, image in pairs]
        good = [item for item in read if isinstance(item, InferRequest)]
        times = StageTimes()
        results = iter(await while_connected(request, services.pipeline.infer_batch(good)) if good else ())
        answers = [next(results) if isinstance(item, InferRequest) else item for item in read]
    for answer in answers:
        if isinstance(answer, Inspection):
            times.add_all(answer.times)
    return JsonResponse(
        {"results": [a.envelope() if isinstance(a, GatewayError) else _answer(a) for a in answers]},
        headers={"Server-Timing": times.header()},
    )


def _items(text: str, n_images: int) -> list[BatchItem]:
    require_small(text, "items", n_images)
    try:
        return _BATCH.validate_json(text)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        raise InvalidRequestError(
            f"items{'.' + where if where else ''}: {first['msg'].removeprefix('Value error, ')}",
            "Send a JSON array with one object for each image.",
        ) from error


async def _settled_item(
    item: BatchItem, image: UploadFile, caller: Caller, settings: Settings
) -> InferRequest | GatewayError:
    """The request of one item, or what is wrong with it."""
    shape = item.shape if item.shape is None or isinstance(item.shape, str) else json.dumps(item.shape)
    try:
        parsed, warnings = parsed_shape(shape)
        return InferRequest(
            key=caller.roi(item.role_id, item.roi_id),
            image=await read_image(image, settings),
            image_name=image.filename or "image",
            mm_per_px=item.mm_per_px,
            shape=parsed,
            k=item.k,
            p_score=item.p_score,
            blur_sigma=item.blur_sigma,
            area_mm2_thr=item.area_mm2_thr,
            heatmap=item.heatmap or settings.heatmap,
            warnings=tuple(warnings),
        )
    except GatewayError as error:
        return error


def _answer(result: Inspection) -> dict[str, Any]:
    png = result.heatmap_png
    return {
        "role_id": result.key.role_id,
        "roi_id": result.key.roi_id,
        "score": result.score,
        "threshold": result.threshold,
        "pixel_threshold": result.pixel_threshold,
        "verdict": result.verdict,
        "verdict_reason": result.verdict_reason,
        "calibration_stale": result.calibration_stale,
        "weights_stale": result.weights_stale,
        "degraded": result.degraded,
        "heatmap_png_base64": None if png is None else base64.b64encode(png).decode(),
        "heatmap_path": result.heatmap_path,
        "heatmap_max": result.heatmap_max,
        "regions": [
            {"bbox": r.bbox, "area_px": r.area_px, "area_mm2": r.area_mm2, "contour": r.contour} for r in result.regions
        ],
        "token_shape": result.token_hw,
        "image_size": result.image_size,
        "params": asdict(result.params),
        "version": result.version,
        "warnings": result.warnings,
    }
