"""``GET /rois/{role}/{roi}/inspections``: images that were inspected lately, where the gateway keeps them."""

from collections.abc import Callable
from contextlib import suppress
from dataclasses import asdict
from typing import Annotated, Any, TypeVar
from urllib.parse import quote

from fastapi import APIRouter, Path, Query, Response
from pydantic import Field

from gateway.api.answers.stored_images import content_type
from gateway.api.deps import CallerDep, ServicesDep
from gateway.api.fields import OR_NULL, RoiId, RoleId
from gateway.api.responses import JsonResponse, documented
from gateway.api.routes.stored_images import ThumbnailSide
from gateway.api.schemas.inspections import KeptInspectionList
from gateway.api.strict_route import StrictRoute
from gateway.errors import ArtifactCorruptError, InvalidRequestError, UnknownImageError
from gateway.images.decoding import Limits, decode_picture, read_header
from gateway.images.thumbnail import SIDE, thumbnail
from gateway.monitoring.kept_inspections import KeptInspection, Order
from gateway.process.services import Services
from gateway.store.roi_key import RoiKey
from gateway.worker_threads import in_thread
from postprocess.verdict import Verdict

router = APIRouter(tags=["inspections"], route_class=StrictRoute)

_T = TypeVar("_T")
_PATH = "/rois/{role_id}/{roi_id}/inspections"
_PAGE = 100
_THUMBNAIL_S = 24 * 3600
InspectionNumber = Annotated[int, Path(ge=0, lt=2**63, description="id in the list")]


@router.get(
    _PATH,
    operation_id="listInspections",
    response_model=KeptInspectionList,
    summary="List the kept inspections of an ROI",
    responses=documented(InvalidRequestError),
)
async def inspections(
    services: ServicesDep,
    caller: CallerDep,
    role_id: RoleId,
    roi_id: RoiId,
    order: Annotated[
        Order | None, OR_NULL, Query(description="borderline: the peak nearest to its threshold first")
    ] = "borderline",
    verdict: Annotated[Verdict | None, OR_NULL, Query(description="only inspections with this verdict")] = None,
    offset: Annotated[
        Annotated[int, Field(ge=0, lt=2**31)] | None, OR_NULL, Query(description="number of inspections to skip")
    ] = 0,
    limit: Annotated[
        Annotated[int, Field(ge=1, le=1000)] | None, OR_NULL, Query(description="largest number to return")
    ] = _PAGE,
) -> Response:
    """List the images of an ROI that were inspected lately on this gateway's host.

    They are kept where GATEWAY_KEEP_INSPECTIONS is set, within the bytes and days of the settings. A picture that is
    inspected again is in the list once, with its last verdict.
    """
    key = caller.roi(role_id, roi_id)

    def work() -> dict[str, Any]:
        total, found = services.kept.of(key, order or "borderline", verdict, offset or 0, limit or _PAGE)
        return {
            **asdict(key),
            "keeps": services.kept.keeps,
            "total": total,
            "offset": offset or 0,
            "limit": limit or _PAGE,
            "inspections": [_body(services, key, number, kept) for number, kept in found],
        }

    return JsonResponse(await _read(services, work))


@router.get(
    f"{_PATH}/{{inspection_id}}/image",
    operation_id="getInspectedImage",
    summary="Image of a kept inspection",
    responses={
        200: {"content": {"image/png": {}, "image/jpeg": {}, "image/bmp": {}, "image/tiff": {}}},
        **documented(InvalidRequestError, UnknownImageError),
    },
    response_class=Response,
)
async def inspected_image(
    services: ServicesDep, caller: CallerDep, role_id: RoleId, roi_id: RoiId, inspection_id: InspectionNumber
) -> Response:
    """Return the bytes of an inspected image as sent."""
    key = caller.roi(role_id, roi_id)
    kept, image = await _read(services, lambda: _one(services, key, inspection_id))
    extension = read_header(image, kept.file_name, _limits(services)).extension
    disposition = f"inline; filename*=UTF-8''{quote(kept.file_name, safe='')}"
    return Response(image, media_type=content_type(extension), headers={"Content-Disposition": disposition})


@router.get(
    f"{_PATH}/{{inspection_id}}/thumbnail",
    operation_id="getInspectedSmall",
    summary="Thumbnail of a kept inspection",
    responses={200: {"content": {"image/jpeg": {}}}, **documented(InvalidRequestError, UnknownImageError)},
    response_class=Response,
)
async def inspected_thumbnail(
    services: ServicesDep,
    caller: CallerDep,
    role_id: RoleId,
    roi_id: RoiId,
    inspection_id: InspectionNumber,
    side: ThumbnailSide = SIDE,
) -> Response:
    """Return a JPEG of an inspected image, of at most `side` pixels a side."""
    key = caller.roi(role_id, roi_id)

    def work() -> bytes:
        kept, image = _one(services, key, inspection_id)
        header = read_header(image, kept.file_name, _limits(services))
        return thumbnail(decode_picture(image, kept.file_name, header, kept.bit_depth).pixels, side or SIDE)

    headers = {"Cache-Control": f"private, max-age={_THUMBNAIL_S}", "Vary": "Authorization"}
    return Response(await _read(services, work), media_type="image/jpeg", headers=headers)


def _one(services: Services, key: RoiKey, number: int) -> tuple[KeptInspection, bytes]:
    found = services.kept.one(key, number)
    if found is None:
        raise UnknownImageError(
            f"{key} has no kept inspection {number}", f"GET {key.url('/inspections')} lists those that are kept."
        )
    return found


def _body(services: Services, key: RoiKey, number: int, kept: KeptInspection) -> dict[str, Any]:
    record = None
    with suppress(ArtifactCorruptError):
        record = services.store.images(key).record(kept.image_id)
    body = asdict(kept)
    del body["bit_depth"]
    return {"id": number, **body, "stored_label": record.label if record is not None and record.is_there else None}


def _limits(services: Services) -> Limits:
    return Limits(services.settings.max_image_bytes, services.settings.max_image_pixels)


async def _read(services: Services, function: Callable[[], _T]) -> _T:
    return await in_thread(function, limiter=services.image_readers)
