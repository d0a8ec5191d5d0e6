"""``POST /infer``."""

import base64
from dataclasses import asdict
from typing import Annotated, Any

from fastapi import APIRouter, Form, Request, Response
from pydantic import Field

from gateway.api.deps import ServicesDep, parsed_shape, read_image
from gateway.api.disconnect import while_connected
from gateway.api.fields import AreaMm2, FormMmPerPx, FormRoi, FormRole, FormShape, Number, OneImage, Percentile
from gateway.api.responses import JsonResponse, documented
from gateway.api.schemas import InferAnswer
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
from gateway.pipeline import HeatmapMode, InferRequest, Inspection
from gateway.roi_key import RoiKey

router = APIRouter(tags=["inspect"])


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
        OverloadedError,
        EngineUnavailableError,
        EngineTimeoutError,
        ArtifactCorruptError,
        StorageFullError,
    ),
)
async def infer(
    request: Request,
    services: ServicesDep,
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
    """Score an image against the memory bank of its ROI; once calibrated, cut the regions above the threshold."""
    parsed, warnings = parsed_shape(shape)
    key = RoiKey(role_id, roi_id)
    with services.inspections.admit():
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


def _answer(result: Inspection) -> dict[str, Any]:
    png = result.heatmap_png
    return {
        "role_id": result.key.role_id,
        "roi_id": result.key.roi_id,
        "score": result.score,
        "threshold": result.threshold,
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
