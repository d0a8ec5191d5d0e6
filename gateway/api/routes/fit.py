"""``POST /fit_ok``."""

import time
from dataclasses import asdict
from typing import Annotated, Any

from fastapi import APIRouter, Form, Request, Response

from gateway.api.admitted_route import PlaceDep, admitted_by
from gateway.api.answers.fit import fit_body
from gateway.api.deps import CallerDep, ServicesDep
from gateway.api.disconnect import while_connected
from gateway.api.fields import (
    OR_NULL,
    CoresetRate,
    FormBitDepth,
    FormMmPerPx,
    FormRecipe,
    FormRoi,
    FormRole,
    FormShape,
    FormTiles,
    OptionalImages,
    RoiId,
    RoleId,
    Seed,
)
from gateway.api.inputs import image_file, parsed_shape
from gateway.api.responses import JsonResponse, documented
from gateway.api.schemas.fit import FitAnswer, FitProgressAnswer
from gateway.api.strict_route import StrictRoute
from gateway.detectors.spatial_weighting import WeightsMode
from gateway.errors import (
    ArtifactCorruptError,
    EngineTimeoutError,
    EngineUnavailableError,
    ImageConflictError,
    InvalidRequestError,
    ModelMismatchError,
    NewerFormatError,
    OverloadedError,
    ShuttingDownError,
    SlowBodyError,
    StorageFullError,
    StorageUnavailableError,
    TooLargeError,
    TrainedOfflineError,
    UnsupportedImageError,
)
from gateway.learning.request import FitRequest

router = APIRouter(tags=["teach"], route_class=admitted_by(lambda services: services.fits))
progress = APIRouter(tags=["teach"], route_class=StrictRoute)


@router.post(
    "/fit_ok",
    response_model=FitAnswer,
    summary="Learn OK images",
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
        ImageConflictError,
        ArtifactCorruptError,
        NewerFormatError,
        StorageFullError,
        StorageUnavailableError,
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
    images: OptionalImages,
    recipe_id: FormRecipe = None,
    shape: FormShape = None,
    coreset_rate: Annotated[
        CoresetRate | None, OR_NULL, Form(description="share of the tokens to keep, usually 0.01 to 0.05")
    ] = None,
    seed: Annotated[Seed | None, OR_NULL, Form(description="seed of the coreset's first centre")] = None,
    spatial_weights: Annotated[
        WeightsMode | None,
        OR_NULL,
        Form(description="for an ROI without a manual box: variance weights by the spread of the OK maps"),
    ] = None,
    bit_depth: FormBitDepth = None,
    tiles: FormTiles = None,
    exclude_suspects: Annotated[
        bool | None,
        OR_NULL,
        Form(description="exclude images that look unlike the others; the answer lists them as excluded"),
    ] = False,
) -> Response:
    """Add images to the OK set of an ROI, and rebuild its memory bank from the whole set.

    Without files, the stored OK images of the ROI are learned, those of `POST /rois/{role_id}/{roi_id}/images`. An
    image that was relabelled NG or deleted there leaves the bank at every fit.

    An image is identified by its decoded pixels: sent again, in the same file or in another, it is counted once.
    `shape` says where the part is: the leave-one-out scores of these images count the pixels inside, and tokens outside
    do not enter the memory bank. `coreset_rate`, `seed`, `spatial_weights`, `bit_depth` and `tiles` are kept with the
    ROI: a later fit without them uses the same. A calibration that rests only on the fit's own leave-one-out scores is
    computed again; any other becomes stale.
    """
    parsed, shape_json = parsed_shape(shape)
    key = caller.roi(role_id, roi_id, recipe_id)
    stored = not images
    if images and not any(upload.filename or upload.size for upload in images):
        raise InvalidRequestError("images: no file was sent", "Send one or more image files in parts named 'images'.")
    if len(images) > services.settings.max_fit_images:
        raise TooLargeError(f"images: {len(images)} in one request; the limit is {services.settings.max_fit_images}")
    files = [image_file(upload, f"image {i}", services.settings) for i, upload in enumerate(images, 1)]
    memory = await services.fitting.memory_needed(key, None if stored else files, coreset_rate, tiles)
    with place.work(memory=memory + place.n_bytes):
        fit = FitRequest(
            key=key,
            images=files,
            mm_per_px=mm_per_px,
            shape=parsed,
            shape_json=shape_json,
            coreset_rate=coreset_rate,
            seed=seed,
            spatial_weights=spatial_weights,
            bit_depth=bit_depth,
            tiles=tiles,
            exclude_suspects=bool(exclude_suspects),
            stored=stored,
        )
        result = await while_connected(request, services.fitting.fit(fit))
    return JsonResponse(fit_body(result), headers={"Server-Timing": result.times.header()})


@progress.get(
    "/rois/{role_id}/{roi_id}/fit",
    operation_id="fitProgress",
    response_model=FitProgressAnswer,
    summary="Progress of a fit",
    responses=documented(InvalidRequestError),
)
async def fit_progress(services: ServicesDep, caller: CallerDep, role_id: RoleId, roi_id: RoiId) -> Response:
    """Say what the running fit of an ROI is doing.

    It knows the fits of the process that answers. Behind a load balancer, another gateway may run the fit.
    """
    key = caller.roi(role_id, roi_id)
    found = services.fitting.progress.of(key)
    body: dict[str, Any] = {"running": found is not None, "stage": None, "done": None, "total": None, "elapsed_s": None}
    if found is not None:
        body |= {"stage": found.stage, "elapsed_s": max(0.0, time.time() - found.started)}
        if found.total:
            body |= {"done": found.done, "total": found.total}
    return JsonResponse({**asdict(key), **body})
