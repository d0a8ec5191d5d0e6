"""``/rois/{role}/{roi}/images``: images with labels."""

from collections.abc import Callable
from dataclasses import asdict
from typing import Annotated, Any, Literal, TypeVar
from urllib.parse import quote

from fastapi import APIRouter, Form, Query, Request, Response
from pydantic import Field

from gateway.api.admitted_route import PlaceDep, admitted_by
from gateway.api.answers.stored_images import content_type, image_body, list_body, stored_body
from gateway.api.deps import CallerDep, ServicesDep
from gateway.api.fields import OR_NULL, FormBitDepth, FormShape, Images, RoiId, RoleId
from gateway.api.inputs import image_file, metadata_texts, parsed_shape
from gateway.api.responses import JsonResponse, documented
from gateway.api.schemas.stored_images import (
    ChangeImage,
    ImageAnswer,
    ImageDeleted,
    ImageList,
    ImagesDeleted,
    StoredAnswer,
)
from gateway.api.strict_route import StrictRoute
from gateway.errors import (
    ArtifactCorruptError,
    ImageConflictError,
    InvalidRequestError,
    NewerFormatError,
    OverloadedError,
    ShuttingDownError,
    SlowBodyError,
    StorageFullError,
    StorageUnavailableError,
    TooLargeError,
    UnknownImageError,
    UnknownRoiError,
    UnsupportedImageError,
)
from gateway.images.thumbnail import SIDE
from gateway.learning.storing import StoreRequest
from gateway.process.services import Services
from gateway.store.labelled_images import ImageRecord
from gateway.worker_threads import in_thread

router = APIRouter(tags=["images"], route_class=StrictRoute)
uploads = APIRouter(tags=["images"], route_class=admitted_by(lambda services: services.uploads))
changes = APIRouter(tags=["images"], route_class=admitted_by(lambda services: services.changes))

_T = TypeVar("_T")
ThumbnailSide = Annotated[
    Annotated[int, Field(ge=16, le=2048)] | None, OR_NULL, Query(description="longest side of the JPEG, in pixels")
]
_Label = Literal["ok", "ng"]
_PATH = "/rois/{role_id}/{roi_id}/images"
_PAGE = 100
_THUMBNAIL_S = 7 * 24 * 3600
_OF_A_CHANGE = (
    InvalidRequestError,
    UnknownRoiError,
    SlowBodyError,
    OverloadedError,
    ShuttingDownError,
    NewerFormatError,
    StorageFullError,
    StorageUnavailableError,
)
_OF_ONE = (InvalidRequestError, UnknownImageError, ArtifactCorruptError, NewerFormatError)


@uploads.post(
    _PATH,
    response_model=StoredAnswer,
    summary="Store images with a label",
    responses=documented(*_OF_A_CHANGE, ImageConflictError, TooLargeError, UnsupportedImageError),
)
async def store_images(
    services: ServicesDep,
    caller: CallerDep,
    place: PlaceDep,
    role_id: RoleId,
    roi_id: RoiId,
    label: Annotated[_Label, Form(description="ok or ng, for all images of the request")],
    images: Images,
    metas: Annotated[
        list[str],
        Form(default_factory=list, description="JSON of each image, in the order of the images; kept as sent"),
    ],
    shape: FormShape = None,
    bit_depth: FormBitDepth = None,
) -> Response:
    """Store images of an ROI with the label OK or NG. The ROI need not be fitted.

    A stored image is not learned until `POST /fit_ok` is sent without files. An image is identified by its decoded
    pixels: sent again with the same label, it is counted once and stays as it was stored first. Sent with the other
    label it is 409. The request is stored whole or not at all.
    """
    parsed, shape_json = parsed_shape(shape)
    key = caller.roi(role_id, roi_id)
    if not any(upload.filename or upload.size for upload in images):
        raise InvalidRequestError("images: no file was sent", "Send one or more image files in parts named 'images'.")
    if len(images) > services.settings.max_fit_images:
        raise TooLargeError(f"images: {len(images)} in one request; the limit is {services.settings.max_fit_images}")
    request = StoreRequest(
        key=key,
        label=label,
        images=[image_file(upload, f"image {i}", services.settings) for i, upload in enumerate(images, 1)],
        metadata=metadata_texts(metas, len(images)),
        shape=parsed,
        shape_json=shape_json,
        bit_depth=bit_depth,
    )
    with place.work():
        return JsonResponse(stored_body(request, await services.storing.add(request)))


@router.get(
    _PATH,
    response_model=ImageList,
    summary="List the images of an ROI",
    responses=documented(InvalidRequestError, UnknownRoiError, NewerFormatError, StorageUnavailableError),
)
async def list_images(
    services: ServicesDep,
    caller: CallerDep,
    role_id: RoleId,
    roi_id: RoiId,
    label: Annotated[_Label | None, OR_NULL, Query(description="only images with this label")] = None,
    offset: Annotated[
        Annotated[int, Field(ge=0, lt=2**31)] | None, OR_NULL, Query(description="number of images to skip")
    ] = 0,
    limit: Annotated[
        Annotated[int, Field(ge=1, le=1000)] | None, OR_NULL, Query(description="largest number of images to return")
    ] = _PAGE,
) -> Response:
    """List the images of an ROI, oldest first: those that were stored, and the OK images that only a fit brought."""
    key = caller.roi(role_id, roi_id)

    def work() -> dict[str, Any]:
        return list_body(key, services.images.all(key), label, offset or 0, limit or _PAGE)

    return JsonResponse(await _read(services, work))


@router.get(
    f"{_PATH}/{{image_id}}",
    operation_id="getImage",
    summary="One image as sent",
    responses={
        200: {"content": {"image/png": {}, "image/jpeg": {}, "image/bmp": {}, "image/tiff": {}}},
        **documented(*_OF_ONE),
    },
    response_class=Response,
)
async def image(
    request: Request, services: ServicesDep, caller: CallerDep, role_id: RoleId, roi_id: RoiId, image_id: str
) -> Response:
    """Return the bytes of an image as sent."""
    key = caller.roi(role_id, roi_id)
    record = await _read(services, lambda: services.images.record(key, image_id.lower()))
    headers = {
        "ETag": f'"{record.file_sha256}"',
        "Cache-Control": "private, no-cache",
        "Content-Disposition": f"inline; filename*=UTF-8''{quote(record.file_name, safe='')}",
    }
    if _is_known(request, headers["ETag"]):
        return Response(status_code=304, headers=headers)
    data = await _read(services, lambda: services.images.content(key, record))
    return Response(data, headers=headers, media_type=content_type(record.extension))


@router.get(
    f"{_PATH}/{{image_id}}/thumbnail",
    operation_id="getThumbnail",
    summary="Thumbnail of an image",
    responses={200: {"content": {"image/jpeg": {}}}, **documented(*_OF_ONE)},
    response_class=Response,
)
async def image_thumbnail(
    request: Request,
    services: ServicesDep,
    caller: CallerDep,
    role_id: RoleId,
    roi_id: RoiId,
    image_id: str,
    side: ThumbnailSide = SIDE,
) -> Response:
    """Return a JPEG of at most `side` pixels a side. A browser may keep it: the id says what it shows.

    With a larger side it shows any stored image in a browser, also a TIFF file.
    """
    key = caller.roi(role_id, roi_id)
    record = await _read(services, lambda: services.images.record(key, image_id.lower()))
    headers = {
        "ETag": f'"thumbnail-{side or SIDE}-{record.id}"',
        "Cache-Control": f"private, max-age={_THUMBNAIL_S}, immutable",
        "Vary": "Authorization",
    }
    if _is_known(request, headers["ETag"]):
        return Response(status_code=304, headers=headers)
    data = await _read(services, lambda: services.images.thumbnail(key, record, side or SIDE))
    return Response(data, headers=headers, media_type="image/jpeg")


@router.get(
    f"{_PATH}/{{image_id}}/metadata",
    operation_id="getImageMetadata",
    summary="Metadata of an image",
    responses={200: {"content": {"application/json": {}}}, **documented(*_OF_ONE)},
    response_class=Response,
)
async def image_metadata(
    services: ServicesDep, caller: CallerDep, role_id: RoleId, roi_id: RoiId, image_id: str
) -> Response:
    """Return the JSON that came with an image, as sent; `null` if none came."""
    key = caller.roi(role_id, roi_id)
    record: ImageRecord = await _read(services, lambda: services.images.record(key, image_id.lower()))
    return Response("null" if record.metadata is None else record.metadata, media_type="application/json")


@changes.patch(
    f"{_PATH}/{{image_id}}",
    response_model=ImageAnswer,
    summary="Relabel an image",
    responses=documented(*_OF_A_CHANGE, UnknownImageError, ArtifactCorruptError),
)
async def change_image(
    services: ServicesDep,
    place: PlaceDep,
    caller: CallerDep,
    role_id: RoleId,
    roi_id: RoiId,
    image_id: str,
    body: ChangeImage,
) -> Response:
    """Change the label of an image, or replace its metadata.

    An image that is relabelled NG leaves the memory bank at the next fit.
    """
    key = caller.roi(role_id, roi_id)

    def work() -> dict[str, Any]:
        return image_body(services.images.change(key, image_id.lower(), body.label, body.metadata))

    with place.work():
        return JsonResponse(await in_thread(work, limiter=services.writers))


@changes.delete(
    f"{_PATH}/{{image_id}}",
    response_model=ImageDeleted,
    summary="Delete an image",
    responses=documented(*_OF_A_CHANGE, UnknownImageError),
)
async def delete_image(
    services: ServicesDep, place: PlaceDep, caller: CallerDep, role_id: RoleId, roi_id: RoiId, image_id: str
) -> Response:
    """Delete an image. If the memory bank has learned it, the next fit removes it from there."""
    key = caller.roi(role_id, roi_id)
    with place.work():
        await in_thread(services.images.delete, key, image_id.lower(), limiter=services.writers)
    return JsonResponse({**asdict(key), "id": image_id.lower(), "deleted": True})


@changes.delete(
    _PATH,
    response_model=ImagesDeleted,
    summary="Delete all images of a label",
    responses=documented(*_OF_A_CHANGE),
)
async def delete_images(
    services: ServicesDep,
    place: PlaceDep,
    caller: CallerDep,
    role_id: RoleId,
    roi_id: RoiId,
    label: Annotated[_Label, Query(description="ok or ng")],
) -> Response:
    """Delete all images of an ROI with one label. Learned ones leave the memory bank at the next fit."""
    key = caller.roi(role_id, roi_id)
    with place.work():
        n = await in_thread(services.images.delete_all, key, label, limiter=services.writers)
    return JsonResponse({**asdict(key), "label": label, "deleted": n})


async def _read(services: Services, function: Callable[[], _T]) -> _T:
    return await in_thread(function, limiter=services.image_readers)


def _is_known(request: Request, etag: str) -> bool:
    """Return whether the client has the answer already (RFC 9110, If-None-Match)."""
    asked = request.headers.get("if-none-match", "")
    return asked.strip() == "*" or etag in [tag.strip().removeprefix("W/") for tag in asked.split(",")]
