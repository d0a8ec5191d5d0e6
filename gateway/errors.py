"""The exception tree, and the HTTP status and code of each exception.

GatewayError
├── InvalidRequestError       422 invalid_request
├── UnauthorizedError         401 unauthorized
├── ForbiddenError            403 forbidden
├── UnknownRoiError           404 unknown_roi
├── UnknownImageError         404 unknown_image
├── ModelMismatchError        409 model_mismatch
├── UnknownVersionError       409 unknown_version
├── TrainedOfflineError       409 trained_offline
├── ImageConflictError        409 image_conflict
├── TooLargeError             413 too_large
├── UnsupportedImageError     415 unsupported_image
├── SlowBodyError             408 slow_body
├── OverloadedError           429 overloaded
├── ShuttingDownError         503 shutting_down
├── EngineUnavailableError    503 engine_unavailable
│   └── EngineTimeoutError    503 engine_timeout
├── ArtifactCorruptError      500 artifact_corrupt
├── NewerFormatError          500 newer_format
└── StorageFullError          507 storage_full
"""

from typing import Any, ClassVar


class GatewayError(Exception):
    """An error for the client: a stable code, what is wrong with which value, and what to do about it."""

    status: ClassVar[int] = 500
    code: ClassVar[str] = "internal"
    default_hint: ClassVar[str] = (
        "Try again. If it fails again, send the X-Request-ID of this answer to the administrator."
    )

    def __init__(self, message: str, hint: str | None = None, *, retry_after_s: int | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint if hint is not None else self.default_hint
        self.retry_after_s = retry_after_s

    def envelope(self) -> dict[str, Any]:
        """Return the body of the error answer."""
        return envelope(self.code, self.message, self.hint)


class InvalidRequestError(GatewayError):
    """A field is missing or invalid."""

    status = 422
    code = "invalid_request"
    default_hint = "Correct the named field and send the request again."


class UnauthorizedError(GatewayError):
    """The API key is missing or unknown."""

    status = 401
    code = "unauthorized"
    default_hint = "Send the header 'Authorization: Bearer <key>'. An administrator makes one: `python -m gateway key`."


class ForbiddenError(GatewayError):
    """The key does not allow this: by its scope or its ROIs."""

    status = 403
    code = "forbidden"
    default_hint = "Use a key with the scope teach, or one that allows this ROI. The administrator makes keys."


class UnknownRoiError(GatewayError):
    """The ROI was never fitted."""

    status = 404
    code = "unknown_roi"
    default_hint = "POST its OK images to /fit_ok first. GET /rois lists the fitted ROIs."


class UnknownImageError(GatewayError):
    """The ROI does not have this image."""

    status = 404
    code = "unknown_image"
    default_hint = "GET /rois/{role_id}/{roi_id}/images lists its images with their ids."


class ModelMismatchError(GatewayError):
    """The memory bank was made with another model than the served one."""

    status = 409
    code = "model_mismatch"
    default_hint = "Send a fit for this ROI (one OK image is enough). It learns the stored OK images again."


class UnknownVersionError(GatewayError):
    """The version of the ROI is not kept, or damaged."""

    status = 409
    code = "unknown_version"
    default_hint = "GET /rois/{role_id}/{roi_id} lists the kept versions."


class TrainedOfflineError(GatewayError):
    """The detector of the ROI is trained offline and cannot learn OK images here."""

    status = 409
    code = "trained_offline"
    default_hint = "Train it again and publish it, roll back to a memory bank, or delete the ROI."


class ImageConflictError(GatewayError):
    """The same picture has the other label already."""

    status = 409
    code = "image_conflict"
    default_hint = "Check the picture. PATCH /rois/{role_id}/{roi_id}/images/{image_id} changes the label."


class TooLargeError(GatewayError):
    """A body, an image or a number of images is over the limit. Decided before decoding."""

    status = 413
    code = "too_large"
    default_hint = "Send less at once, or raise the limit in the gateway's settings."


class UnsupportedImageError(GatewayError):
    """The file is not an image, is damaged, or has an unsupported format."""

    status = 415
    code = "unsupported_image"
    default_hint = "Send a complete PNG, JPEG, BMP or TIFF file, grey or colour, with 8 or 16 bits per channel."


class SlowBodyError(GatewayError):
    """The body arrived too slowly and blocked a place that others need."""

    status = 408
    code = "slow_body"
    default_hint = "Use a faster connection, or lower GATEWAY_MIN_UPLOAD_BYTES_S."


class OverloadedError(GatewayError):
    """Too much work is queued to serve the request in time."""

    status = 429
    code = "overloaded"
    default_hint = "Send the request again after the time in Retry-After."


class ShuttingDownError(GatewayError):
    """The process is about to end and accepts no more work."""

    status = 503
    code = "shutting_down"
    default_hint = "Send the request again on a new connection after the time in Retry-After."


class EngineUnavailableError(GatewayError):
    """The engine that computes tokens is unavailable."""

    status = 503
    code = "engine_unavailable"
    default_hint = "Send the request again after the time in Retry-After. GET /ready says what is missing."


class EngineTimeoutError(EngineUnavailableError):
    """The engine did not answer within the deadline."""

    code = "engine_timeout"
    default_hint = (
        "Send the request again after the time in Retry-After. If this happens often, the server is overloaded."
    )


class ArtifactCorruptError(GatewayError):
    """A stored artifact fails its checksum, and no older version is undamaged."""

    status = 500
    code = "artifact_corrupt"
    default_hint = "Fit this ROI again, or restore its folder from a backup."


class NewerFormatError(GatewayError):
    """A newer gateway wrote the artifact. It is neither used nor changed."""

    status = 500
    code = "newer_format"
    default_hint = "Upgrade this gateway."


class StorageFullError(GatewayError):
    """Nothing could be stored. Earlier data is unchanged."""

    status = 507
    code = "storage_full"
    default_hint = "Free space in that folder of the gateway, or make it writable. Then send the request again."


ERRORS: tuple[type[GatewayError], ...] = (
    InvalidRequestError,
    UnauthorizedError,
    ForbiddenError,
    UnknownRoiError,
    UnknownImageError,
    ModelMismatchError,
    UnknownVersionError,
    TrainedOfflineError,
    ImageConflictError,
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
)


def envelope(code: str, message: str, hint: str) -> dict[str, Any]:
    """Return an error body."""
    return {"error": {"code": code, "message": message, "hint": hint}}
