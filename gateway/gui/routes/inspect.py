"""``/infer`` and ``/infer_dataset``."""

from collections.abc import Collection
from typing import Annotated

from anyio import to_thread
from fastapi import APIRouter, Form, Request, Response

from gateway.api.admitted_route import PlaceDep, admitted_by
from gateway.api.deps import ServicesDep
from gateway.api.disconnect import while_connected
from gateway.api.fields import OR_NULL, FormMmPerPx, FormRecipe, FormRoi, FormRole, OneImage
from gateway.api.inputs import read_image
from gateway.errors import UnknownRoiError
from gateway.gui.answers import answer, decision_body
from gateway.gui.caller import GuiCallerDep
from gateway.gui.data_set import records, shape_of
from gateway.gui.deciding import require_decision
from gateway.gui.errors import CalibrationMissingError, NotFittedError
from gateway.gui.evaluation import Evaluation
from gateway.gui.schemas import InferDataset
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
        try:
            result = await while_connected(request, services.pipeline.infer(inspection))
        except UnknownRoiError as error:  # deleted meanwhile
            raise NotFittedError(key) from error
    body = decision_body(result, require_decision(result), include_heatmap)
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
    evaluation = Evaluation(
        services,
        request.app.state.evaluation,
        key,
        images,
        mm_per_px=scale or body.default_mm_per_px,
        include_heatmap=body.include_heatmap,
    )
    items = await while_connected(request, evaluation.items(stored, place))
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
