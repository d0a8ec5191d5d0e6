"""JSON answers, error answers, and the error answers in the OpenAPI document."""

from typing import Any

import orjson
from fastapi import Response

from gateway.api.schemas.errors import ErrorEnvelope
from gateway.errors import GatewayError, ShuttingDownError, envelope
from gateway.monitoring.request_context import tell

_ERROR_EXAMPLES: dict[str, tuple[str, str]] = {
    "invalid_request": (
        "mm_per_px: '0,2': use a point as the decimal separator, as in 0.2, and no thousands separator",
        "Correct the field named and send the request again.",
    ),
    "unauthorized": (
        "an API key is required, and the request has none",
        "Send the header 'Authorization: Bearer <key>'.",
    ),
    "forbidden": ("the key 'line1' does not allow disc-front/pad-9", "Use a key that allows this ROI."),
    "unknown_roi": ("disc-front/pad-9 was never fitted", "POST its OK images to /fit_ok first."),
    "unknown_image": (
        "disc-front/pad-1 has no image 9f86…",
        "GET /rois/disc-front/pad-1/images lists its images with their ids.",
    ),
    "image_conflict": (
        "images: pad-1_0017.png is stored with the label ng, as pad-1_0017.png; no image of this request was stored",
        'If it is OK, PATCH /rois/disc-front/pad-1/images/9f86… with {"label": "ok"}; else leave it out.',
    ),
    "model_mismatch": ("disc-front/pad-1 was fitted with model 3f0c…, the engine serves 91ab…", "Fit it again."),
    "unknown_version": (
        "version 2 of disc-front/pad-1 is not kept; kept versions are 3, 4, 5",
        "GET /rois/disc-front/pad-1.",
    ),
    "trained_offline": (
        "disc-front/pad-1 uses a student-teacher-resnet18 model, which is trained offline",
        "Train it again with `python -m export student-teacher … --publish disc-front/pad-1`; or roll back.",
    ),
    "too_large": ("roi.png: 60000 × 60000 pixels; the limit is 25000000", "Send a smaller image."),
    "unsupported_image": ("roi.png: the file is truncated or damaged", "Send a complete PNG or JPEG file."),
    "slow_body": (
        "1200 bytes of the body arrived in 15 s; the lowest rate is 65536 bytes a second",
        "Send it faster.",
    ),
    "overloaded": ("64 requests to inspect are running or waiting; the limit is 64", "Send it again later."),
    "shutting_down": ("this gateway is shutting down", "Send it again, on a new connection."),
    "engine_unavailable": ("the embedded engine is not ready: not started", "GET /ready says what is missing."),
    "engine_timeout": ("Triton did not answer within 10 s", "Send it again after the time in Retry-After."),
    "artifact_corrupt": ("disc-front/pad-1: memory.npz fails its checksum; no version is whole", "Fit it again."),
    "newer_format": (
        "disc-front/pad-1: calib.json has format 3; this gateway reads formats up to 2",
        "A newer gateway wrote it: upgrade this one.",
    ),
    "storage_unavailable": (
        "s3://plant/models does not answer",
        "Send the request again after the time in Retry-After.",
    ),
    "storage_full": ("cannot write to the models folder: No space left on device", "Free space."),
}


class JsonResponse(Response):
    """JSON answer written by orjson, which accepts NumPy arrays."""

    media_type = "application/json"

    def render(self, content: Any) -> bytes:
        """Return the JSON text of a value."""
        return orjson.dumps(content, option=orjson.OPT_SERIALIZE_NUMPY)


def error_response(error: GatewayError) -> JsonResponse:
    """Return the HTTP answer to a domain error."""
    tell(code=error.code)
    headers = {} if error.retry_after_s is None else {"Retry-After": str(error.retry_after_s)}
    if error.status == 401:
        headers["WWW-Authenticate"] = "Bearer"
    if isinstance(error, ShuttingDownError):
        headers["Connection"] = "close"
    return JsonResponse(error.envelope(), status_code=error.status, headers=headers)


def documented(*kinds: type[GatewayError]) -> dict[int | str, dict[str, Any]]:
    """Return the OpenAPI ``responses`` of the errors that a route can raise."""
    by_status: dict[int | str, dict[str, Any]] = {}
    for kind in kinds:
        summary = (kind.__doc__ or "").splitlines()[0]
        answer = by_status.setdefault(
            kind.status,
            {"model": ErrorEnvelope, "description": "", "content": {"application/json": {"examples": {}}}},
        )
        answer["description"] = f"{answer['description']}\n\n`{kind.code}`: {summary}".strip()
        answer["content"]["application/json"]["examples"][kind.code] = {
            "value": envelope(kind.code, *_ERROR_EXAMPLES[kind.code])
        }
    return by_status
