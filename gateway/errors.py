"""The whole exception tree, and its one mapping to HTTP.

GatewayError
├── InvalidRequestError       422 invalid_request
├── UnauthorizedError         401 unauthorized
├── ForbiddenError            403 forbidden
├── UnknownRoiError           404 unknown_roi
├── UnknownImageError         404 unknown_image
├── ModelMismatchError        409 model_mismatch
├── UnknownVersionError       409 unknown_version
├── TrainedOfflineError       409 trained_offline
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
    """What a client is told: a stable code, what is wrong with which value, and what to do about it."""

    status: ClassVar[int] = 500
    code: ClassVar[str] = "internal"
    default_hint: ClassVar[str] = "Try again; if it persists, send the X-Request-ID of this answer to whoever runs it."

    def __init__(self, message: str, hint: str | None = None, *, retry_after_s: int | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint if hint is not None else self.default_hint
        self.retry_after_s = retry_after_s

    def envelope(self) -> dict[str, Any]:
        """The body of every error answer."""
        return envelope(self.code, self.message, self.hint)


class InvalidRequestError(GatewayError):
    """A field is missing or wrong."""

    status = 422
    code = "invalid_request"
    default_hint = "Correct the field named and send the request again."


class UnauthorizedError(GatewayError):
    """No API key, or none of this gateway's."""

    status = 401
    code = "unauthorized"
    default_hint = "Send the header 'Authorization: Bearer <key>'; `python -m gateway key` makes one."


class ForbiddenError(GatewayError):
    """Not with this key: its scope or its ROIs do not cover it."""

    status = 403
    code = "forbidden"
    default_hint = "Use a key of the scope teach, or one that is for this ROI; whoever runs the gateway makes them."


class UnknownRoiError(GatewayError):
    """An ROI that was never fitted."""

    status = 404
    code = "unknown_roi"
    default_hint = "POST OK images of it to /fit_ok first; GET /rois lists what is fitted."


class UnknownImageError(GatewayError):
    """An OK image that an ROI does not have."""

    status = 404
    code = "unknown_image"
    default_hint = "GET /rois/{role_id}/{roi_id} lists its images by their SHA-256."


class ModelMismatchError(GatewayError):
    """A memory bank made with another model than the one that is served."""

    status = 409
    code = "model_mismatch"
    default_hint = "Send a fit for this ROI (one OK image is enough): its stored OK images are then learned anew."


class UnknownVersionError(GatewayError):
    """A version of an ROI that is not kept, or not whole."""

    status = 409
    code = "unknown_version"
    default_hint = "GET /rois/{role_id}/{roi_id} lists the versions that are kept."


class TrainedOfflineError(GatewayError):
    """OK images for an ROI whose detector is trained offline."""

    status = 409
    code = "trained_offline"
    default_hint = "Train it again and publish it, roll back to a memory bank, or delete the ROI."


class TooLargeError(GatewayError):
    """A body, an image or a number of images over the limit, decided before decoding."""

    status = 413
    code = "too_large"
    default_hint = "Send less at a time, or raise the limit in the gateway's settings."


class UnsupportedImageError(GatewayError):
    """Not an image, a damaged one, or a format that is not served."""

    status = 415
    code = "unsupported_image"
    default_hint = "Send a whole PNG, JPEG, BMP or TIFF file, grey or colour, 8 or 16 bits a channel."


class SlowBodyError(GatewayError):
    """The body came in so slowly that it held up others."""

    status = 408
    code = "slow_body"
    default_hint = "Send it over a faster connection, or lower the rate that the gateway's settings ask for."


class OverloadedError(GatewayError):
    """More work is queued than will be done in time."""

    status = 429
    code = "overloaded"
    default_hint = "Send it again after the time in Retry-After."


class ShuttingDownError(GatewayError):
    """This process is about to end and admits no more work."""

    status = 503
    code = "shutting_down"
    default_hint = "Send it again, on a new connection, after the time in Retry-After."


class EngineUnavailableError(GatewayError):
    """No tokens can be had now."""

    status = 503
    code = "engine_unavailable"
    default_hint = "Send it again after the time in Retry-After; GET /ready says what is missing."


class EngineTimeoutError(EngineUnavailableError):
    """The engine is there, but did not answer within the deadline."""

    code = "engine_timeout"
    default_hint = "Send it again after the time in Retry-After; if it happens often, the server has too much to do."


class ArtifactCorruptError(GatewayError):
    """A stored artifact fails its checksum, and no older version is whole."""

    status = 500
    code = "artifact_corrupt"
    default_hint = "Fit this ROI again, or restore its folder from a backup."


class NewerFormatError(GatewayError):
    """A stored artifact of a later format than this gateway knows; it is neither served nor changed."""

    status = 500
    code = "newer_format"
    default_hint = "A newer gateway wrote it: upgrade this one."


class StorageFullError(GatewayError):
    """Nothing could be persisted; what was stored before is untouched."""

    status = 507
    code = "storage_full"
    default_hint = "Free space in that folder of the gateway, or make it writable, then send the request again."


ERRORS: tuple[type[GatewayError], ...] = (
    InvalidRequestError,
    UnauthorizedError,
    ForbiddenError,
    UnknownRoiError,
    UnknownImageError,
    ModelMismatchError,
    UnknownVersionError,
    TrainedOfflineError,
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
    """The one form of an error body."""
    return {"error": {"code": code, "message": message, "hint": hint}}
