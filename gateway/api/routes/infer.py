"""``POST /infer`` and ``POST /infer_batch``."""

import json
from typing import Annotated

from fastapi import APIRouter, Form, Request, Response, UploadFile
from pydantic import FailFast, TypeAdapter, ValidationError

from gateway.api.admitted_route import PlaceDep, admitted_by
from gateway.api.answers.inspection import inspection_body
from gateway.api.deps import CallerDep, ServicesDep
from gateway.api.disconnect import while_connected
from gateway.api.fields import Images
from gateway.api.inputs import parsed_json, parsed_shape, read_image
from gateway.api.recipe import RoiCaller
from gateway.api.responses import JsonResponse, documented
from gateway.api.schemas.infer import BatchAnswer, BatchItem, InferAnswer, InferForm
from gateway.api.validation_messages import message_of
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
    StorageUnavailableError,
    TooLargeError,
    UnknownRoiError,
    UnsupportedImageError,
)
from gateway.inspection.answer import Inspection
from gateway.inspection.request import InferRequest
from gateway.monitoring.timing import StageTimes
from gateway.settings import Settings

router = APIRouter(tags=["inspect"], route_class=admitted_by(lambda services: services.inspections))

# Stop at the first error: a list of a million wrong items would have a million of them.
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
        StorageUnavailableError,
    ),
)
async def infer(
    request: Request,
    services: ServicesDep,
    caller: CallerDep,
    place: PlaceDep,
    form: Annotated[InferForm, Form(media_type="multipart/form-data")],
) -> Response:
    """Score an image against the memory bank of its ROI. A calibrated ROI also gets a verdict and defect regions.

    `verdict` is `ng` if the peak is at or above `peak_threshold`, if the score is above `threshold`, or both. The peak
    is the highest level at which a region of at least `area_mm2_thr` survives in the blurred map: it reaches its
    threshold exactly if there is a region. `verdict_reason` says which. An image that shows nothing is `ng` with the
    reason `no_picture`, also before calibration.
    """
    shape, _ = parsed_shape(form.shape)
    key = caller.roi(form.role_id, form.roi_id, form.recipe_id)
    with place.work():
        inspection = InferRequest(
            key=key,
            image=await read_image(form.image, services.settings),
            image_name=form.image.filename or "image",
            mm_per_px=form.mm_per_px,
            shape=shape,
            bit_depth=form.bit_depth,
            k=form.k,
            p_score=form.p_score,
            blur_sigma=form.blur_sigma,
            area_mm2_thr=form.area_mm2_thr,
            heatmap=form.heatmap or services.settings.heatmap,
            explain=bool(form.explain),
        )
        result = await while_connected(request, services.pipeline.infer(inspection))
    return JsonResponse(inspection_body(result), headers={"Server-Timing": result.times.header()})


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
        StorageUnavailableError,
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
            description="JSON array with one object per image, in the order of `images`, with the fields of /infer",
            examples=['[{"role_id": "disc-front", "roi_id": "pad-1", "mm_per_px": 0.2}]'],
        ),
    ],
    images: Images,
) -> Response:
    """Inspect several images, each with its own ROI and parameters, in one batch of the network.

    The results have the order of `items`. An error of one image or ROI is returned in its place, as the error envelope
    that /infer would return. The other images are inspected.
    """
    batch = _items(items, len(images))
    if len(batch) != len(images):
        raise InvalidRequestError(f"items: {len(batch)} items, but {len(images)} images")
    if len(batch) > services.settings.max_batch_images:
        raise TooLargeError(f"images: {len(batch)} in one request; the limit is {services.settings.max_batch_images}")
    with place.work(len(batch)):
        pairs = zip(batch, images, strict=True)
        read = [await _item_request(item, image, caller, services.settings) for item, image in pairs]
        good = [item for item in read if isinstance(item, InferRequest)]
        times = StageTimes()
        results = iter(await while_connected(request, services.pipeline.infer_batch(good)) if good else ())
        answers = [next(results) if isinstance(item, InferRequest) else item for item in read]
    for answer in answers:
        if isinstance(answer, Inspection):
            times.add_all(answer.times)
    return JsonResponse(
        {"results": [a.envelope() if isinstance(a, GatewayError) else inspection_body(a) for a in answers]},
        headers={"Server-Timing": times.header()},
    )


def _items(text: str, n_images: int) -> list[BatchItem]:
    try:
        return _BATCH.validate_python(parsed_json(text, "items", n_images))
    except ValidationError as error:
        first = error.errors()[0]
        message = message_of({**first, "loc": ("items", *first["loc"])})
        raise InvalidRequestError(message, "Send a JSON array with one object per image.") from error


async def _item_request(
    item: BatchItem, image: UploadFile, caller: RoiCaller, settings: Settings
) -> InferRequest | GatewayError:
    """Return the request of one item, or the error in it."""
    shape = item.shape if item.shape is None or isinstance(item.shape, str) else json.dumps(item.shape)
    try:
        parsed, _ = parsed_shape(shape)
        return InferRequest(
            key=caller.roi(item.role_id, item.roi_id, item.recipe_id),
            image=await read_image(image, settings),
            image_name=image.filename or "image",
            mm_per_px=item.mm_per_px,
            shape=parsed,
            bit_depth=item.bit_depth,
            k=item.k,
            p_score=item.p_score,
            blur_sigma=item.blur_sigma,
            area_mm2_thr=item.area_mm2_thr,
            heatmap=item.heatmap or settings.heatmap,
            explain=bool(item.explain),
        )
    except GatewayError as error:
        return error
