"""``/infer`` and ``/infer_dataset``."""

import base64
from collections.abc import Collection
from typing import Annotated, Any

from anyio import to_thread
from fastapi import APIRouter, Form, Request, Response

from gateway.api.admitted_route import PlaceDep, admitted_by
from gateway.api.deps import ServicesDep
from gateway.api.disconnect import while_connected
from gateway.api.fields import OR_NULL, FormMmPerPx, FormRecipe, FormRoi, FormRole, OneImage
from gateway.api.inputs import read_image
from gateway.errors import GatewayError, InvalidRequestError, UnknownRoiError
from gateway.gui.answers import answer
from gateway.gui.caller import GuiCallerDep
from gateway.gui.data_set import file_name, records, sample_of, shape_of
from gateway.gui.deciding import Deciding, deciding
from gateway.gui.errors import CalibrationMissingError, NotFittedError
from gateway.gui.schemas import InferDataset
from gateway.inspection.answer import Inspection
from gateway.inspection.pipeline import InspectionPipeline
from gateway.inspection.request import InferRequest
from gateway.process.services import Services
from gateway.store.labelled_images import LABELS, ImageRecord, Label
from gateway.store.roi_key import RoiKey
from gateway.worker_threads import in_thread

router = APIRouter(route_class=admitted_by(lambda services: services.inspections, ignores_unknown=True))


@router.post("/infer")
async def infer(
    request: Request,
    services: ServicesDep,
    gui: GuiCallerDep,
    place: PlaceDep,
    role_id: FormRole,
    roi_id: FormRoi,
    mm_per_px: FormMmPerPx,
    image: OneImage,
    shape: Annotated[str | None, OR_NULL, Form()] = None,
    include_heatmap: Annotated[bool | None, OR_NULL, Form()] = None,
    recipe_id: FormRecipe = None,
) -> Response:
    """Decide about one image. Without `include_heatmap`, an image that is NG has a heatmap."""
    own = gui.own(role_id, roi_id, recipe_id)
    await to_thread.run_sync(gui.scales.require, own.recipe_id, mm_per_px)
    key = await gui.fitted(own)
    await _require_calibrated(services, key)
    with place.work():
        inspection = InferRequest(
            key=key,
            image=await read_image(image, services.settings),
            image_name=image.filename or "image",
            mm_per_px=mm_per_px,
            shape=shape_of(shape, "shape"),
            heatmap="none" if include_heatmap is False else "base64",
        )
        result, found = await while_connected(request, _decided(services.pipeline, inspection))
    body = _body(result, found, include_heatmap)
    return answer(key, {**body, "token_shape": result.token_hw, "warnings": result.warnings})


@router.post("/infer_dataset")
async def infer_dataset(
    request: Request, services: ServicesDep, gui: GuiCallerDep, place: PlaceDep, body: InferDataset
) -> Response:
    """Decide about every image of the data set. The error of one image stands in its item."""
    own = gui.own(body.role_id, body.roi_id, body.recipe_id)
    images = await gui.with_images(own)
    key = await gui.fitted(own)
    scale = await to_thread.run_sync(gui.scales.of, images.recipe_id)
    stored = await in_thread(_data_set, services, images, body.labels or LABELS, limiter=services.image_readers)
    await _require_calibrated(services, key)
    pipeline: InspectionPipeline = request.app.state.evaluation

    async def item(record: ImageRecord) -> dict[str, Any]:
        """One piece of work each, so that a large data set leaves room for inspections."""
        try:
            with place.work():
                inspection = await _of_data_set(
                    services, key, images, record, scale or body.default_mm_per_px, body.include_heatmap
                )
                result, found = await _decided(pipeline, inspection)
        except GatewayError as error:
            return {**_item(record), "error": error.message}
        return {
            **_item(record),
            "mm_per_px": inspection.mm_per_px,
            **_body(result, found, body.include_heatmap),
            "n_regions": len(result.regions),
        }

    async def work() -> list[dict[str, Any]]:
        return [await item(record) for record in stored]

    items = await while_connected(request, work())
    return answer(
        key,
        {
            "status": "ok",
            "role_id": key.role_id,
            "roi_id": key.roi_id,
            "n_total": len(items),
            "n_errors": sum(item["error"] is not None for item in items),
            "items": items,
        },
    )


def _data_set(services: Services, key: RoiKey, labels: Collection[Label]) -> list[ImageRecord]:
    return [record for label in LABELS if label in labels for record in records(services, key, label)]


async def _require_calibrated(services: Services, key: RoiKey) -> None:
    """Refuse an ROI that cannot decide, before the network runs.

    Raises:
        NotFittedError: it is not fitted.
        CalibrationMissingError: it is not calibrated.
    """
    try:
        roi = await services.banks.get(key)
    except UnknownRoiError as error:
        raise NotFittedError(key) from error
    if roi.calibration is None:
        raise CalibrationMissingError(key)


def _item(record: ImageRecord) -> dict[str, Any]:
    """Return the item of an image that has no decision."""
    return {
        "label": record.label,
        "filename": file_name(record),
        "mm_per_px": None,
        "score": None,
        "threshold": None,
        "decision": None,
        "regions": [],
        "n_regions": 0,
        "heatmap_png_base64": None,
        "error": None,
    }


async def _of_data_set(
    services: Services,
    key: RoiKey,
    images: RoiKey,
    record: ImageRecord,
    scale: float | None,
    include_heatmap: bool | None,
) -> InferRequest:
    """Return the inspection of an image of a data set.

    Raises:
        GatewayError: it cannot be read, or its scale is unknown.
    """
    mm_per_px = sample_of(record.metadata, "metadata").mm_per_px or scale
    if mm_per_px is None:
        raise InvalidRequestError("mm_per_px: neither the metadata of the image nor default_mm_per_px states it")
    return InferRequest(
        key=key,
        image=await in_thread(services.images.content, images, record, limiter=services.image_readers),
        image_name=record.file_name,
        mm_per_px=mm_per_px,
        shape=shape_of(record.shape, "shape"),
        bit_depth=record.bit_depth,
        heatmap="none" if include_heatmap is False else "base64",
    )


async def _decided(pipeline: InspectionPipeline, inspection: InferRequest) -> tuple[Inspection, Deciding]:
    """Return the inspection of an image with its decision.

    Raises:
        NotFittedError: the ROI is not fitted.
        CalibrationMissingError: it has no threshold that applies.
    """
    try:
        result = await pipeline.infer(inspection)
    except UnknownRoiError as error:
        raise NotFittedError(inspection.key) from error
    found = deciding(result)
    if found is None:
        why = f"not for the {result.verdict_reason} of this request" if result.verdict_reason else None
        raise CalibrationMissingError(inspection.key, *filter(None, [why]))
    return result, found


def _body(result: Inspection, found: Deciding, include_heatmap: bool | None) -> dict[str, Any]:
    wanted = found.decision == "ng" if include_heatmap is None else include_heatmap
    png = result.heatmap_png if wanted else None
    return {
        "score": found.score,
        "threshold": found.threshold,
        "decision": found.decision,
        "regions": [
            {
                **dict(zip(("x", "y", "w", "h"), region.bbox, strict=True)),
                "bbox": region.bbox,
                "area_px": region.area_px,
                "area_mm2": region.area_mm2,
                "contour": region.contour,
            }
            for region in result.regions
        ],
        "heatmap_png_base64": None if png is None else base64.b64encode(png).decode(),
    }
