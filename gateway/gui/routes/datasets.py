"""``/datasets``: the images that the GUI collects, OK and NG."""

import json
from typing import Annotated, Any, Literal
from urllib.parse import quote

from fastapi import APIRouter, Form, Response

from gateway.api.admitted_route import PlaceDep, admitted_by
from gateway.api.answers.stored_images import content_type
from gateway.api.deps import ServicesDep
from gateway.api.fields import FormRecipe, FormRoi, FormRole, Images, RoiId, RoleId
from gateway.api.inputs import image_file, metadata_texts
from gateway.errors import InvalidRequestError, TooLargeError, UnknownImageError, UnknownRoiError
from gateway.gui.answers import answer, ids
from gateway.gui.caller import GuiCallerDep
from gateway.gui.data_set import file_name, find, listed, sample_of, shape_of
from gateway.gui.lenient_route import LenientRoute
from gateway.learning.request import ImageFile
from gateway.learning.storing import StoreRequest
from gateway.store.labelled_images import Label
from gateway.worker_threads import in_thread
from postprocess.roi_mask import shape_text

router = APIRouter(route_class=LenientRoute)
uploads = APIRouter(route_class=admitted_by(lambda services: services.uploads, ignores_unknown=True))
changes = APIRouter(route_class=admitted_by(lambda services: services.changes, ignores_unknown=True))

_Label = Literal["ok", "ng"]


@uploads.post("/datasets/{label}/upload")
async def upload(
    services: ServicesDep,
    gui: GuiCallerDep,
    place: PlaceDep,
    label: _Label,
    role_id: FormRole,
    roi_id: FormRoi,
    images: Images,
    metas: Annotated[list[str], Form(default_factory=list)],
    recipe_id: FormRecipe = None,
) -> Response:
    """Store images with their metadata. `shape_json` in the metadata of an image says where the part is in it."""
    key = gui.own(role_id, roi_id, recipe_id)
    settings = services.settings
    if not any(upload.filename or upload.size for upload in images):
        raise InvalidRequestError("images: no file was sent", "Send one or more image files in parts named 'images'.")
    if len(images) > settings.max_fit_images:
        raise TooLargeError(f"images: {len(images)} in one request; the limit is {settings.max_fit_images}")
    metadata = metadata_texts(metas, len(images))
    files, scales = [], []
    for i, (sent, text) in enumerate(zip(images, metadata, strict=True), 1):
        sample = sample_of(text, f"metas: number {i}")
        shape = shape_of(sample.shape_json, f"metas: number {i}: shape_json")
        file = image_file(sent, f"image {i}", settings)
        files.append(ImageFile(file.name, file.read, shape, None if shape is None else shape_text(shape)))
        scales += [] if sample.mm_per_px is None else [sample.mm_per_px]
    with place.work():
        await in_thread(gui.scales.fix, key.recipe_id, *scales, limiter=services.writers)
        result = await services.storing.add(StoreRequest(key, label, files, metadata))
    saved = [file_name(record) for record, _ in result.images]
    return answer(key, {"status": "ok", "saved": saved, "warnings": result.warnings})


@router.get("/datasets/list")
async def data_set(services: ServicesDep, gui: GuiCallerDep, role_id: RoleId, roi_id: RoiId) -> Response:
    """List the data set of an ROI, oldest first."""
    key = await gui.with_images(gui.own(role_id, roi_id))
    return answer(key, await in_thread(listed, services, key, limiter=services.image_readers))


@router.get("/datasets/file")
async def file(
    services: ServicesDep, gui: GuiCallerDep, role_id: RoleId, roi_id: RoiId, label: _Label, filename: str
) -> Response:
    """Return the bytes of an image as uploaded."""
    key = await gui.with_images(gui.own(role_id, roi_id))

    def work() -> tuple[bytes, str]:
        record = find(services, key, label, filename)
        return services.images.content(key, record), record.extension

    data, extension = await in_thread(work, limiter=services.image_readers)
    disposition = f"inline; filename*=UTF-8''{quote(filename.lower(), safe='')}"
    return Response(data, media_type=content_type(extension), headers={"Content-Disposition": disposition})


@router.get("/datasets/meta")
async def meta(
    services: ServicesDep, gui: GuiCallerDep, role_id: RoleId, roi_id: RoiId, label: _Label, filename: str
) -> Response:
    """Return the metadata of an image as uploaded, with its name, its label and when it was made or stored."""
    key = await gui.with_images(gui.own(role_id, roi_id))
    record = await in_thread(find, services, key, label, filename, limiter=services.image_readers)
    sent: dict[str, Any] = {} if record.metadata is None else json.loads(record.metadata)
    body = {
        "created_at_utc": record.created_at,
        **sent,
        "filename": file_name(record),
        "label": record.label,
        **ids(key.recipe_id),
    }
    # Not by orjson, which has no integers beyond 64 bits: the metadata may have any.
    return Response(json.dumps(body, ensure_ascii=False).encode(), media_type="application/json")


@changes.delete("/datasets/file")
async def delete_file(
    services: ServicesDep,
    gui: GuiCallerDep,
    place: PlaceDep,
    role_id: RoleId,
    roi_id: RoiId,
    label: _Label,
    filename: str,
) -> Response:
    """Delete an image; the next fit removes it from the memory bank. `deleted` is false if there is none."""
    key = gui.own(role_id, roi_id)

    def work() -> bool:
        try:
            services.images.delete(key, find(services, key, label, filename).id, label)
        except (UnknownImageError, UnknownRoiError):
            return False
        return True

    with place.work():
        deleted = await in_thread(work, limiter=services.writers)
    return answer(key, {"deleted": deleted, "filename": filename})


@changes.delete("/datasets/clear")
async def clear(
    services: ServicesDep, gui: GuiCallerDep, place: PlaceDep, role_id: RoleId, roi_id: RoiId, label: _Label
) -> Response:
    """Delete all images with a label. OK images that were sent to a fit without the data set stay learned."""
    key = gui.own(role_id, roi_id)

    def work(label: Label) -> int:
        try:
            return services.images.delete_all(key, label, only_stored=True)
        except UnknownRoiError:
            return 0

    with place.work():
        cleared = await in_thread(work, label, limiter=services.writers)
    return answer(key, {"cleared": cleared, "label": label})
