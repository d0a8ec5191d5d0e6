"""Exceptions of the client.

PatchcoreError
├── ConnectError              the gateway cannot be reached, or the connection broke
│   └── TimeoutError          the gateway did not answer in time
├── AnswerError               the answer is not one of a PatchCore gateway
├── ImageError                an image cannot be read or encoded here
└── GatewayError              an error answer; one class for each `code`
    ├── InvalidRequestError       422 invalid_request
    ├── UnauthorizedError         401 unauthorized
    ├── ForbiddenError            403 forbidden
    ├── UnknownRoiError           404 unknown_roi
    ├── UnknownImageError         404 unknown_image
    ├── ImageConflictError        409 image_conflict
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
    ├── StorageUnavailableError   503 storage_unavailable
    ├── ArtifactCorruptError      500 artifact_corrupt
    ├── NewerFormatError          500 newer_format
    └── StorageFullError          507 storage_full
"""

import builtins
from collections.abc import Iterator
from typing import ClassVar


class PatchcoreError(Exception):
    """Base class of every exception that this package raises."""


class ConnectError(PatchcoreError):
    """The gateway cannot be reached, or the connection broke before the answer was complete."""


class TimeoutError(ConnectError, builtins.TimeoutError):  # noqa: A001  # a TimeoutError for callers who know no more
    """The gateway did not answer in time. It may still do what was asked for."""


class AnswerError(PatchcoreError):
    """The answer is not one of a PatchCore gateway: of a proxy, for example, or of a very different version."""


class ImageError(PatchcoreError, ValueError):
    """An image cannot be read or encoded on this side."""


class GatewayError(PatchcoreError):
    """An error answer of the gateway, or the error of one image of a batch.

    Attributes:
        code: stable name of the error, such as `unknown_roi`.
        message: what is wrong with which value.
        hint: what to do about it.
        status: HTTP status; None for the error of one image of a batch.
        request_id: `X-Request-ID` of the answer, for the administrator.
        retry_after_s: seconds after which the gateway asks to send the request again, if it does.
    """

    error_code: ClassVar[str] = ""

    def __init__(
        self,
        code: str,
        message: str,
        hint: str,
        *,
        status: int | None = None,
        request_id: str | None = None,
        retry_after_s: float | None = None,
    ) -> None:
        super().__init__(f"{code}: {message} {hint}".strip())
        self.code = code
        self.message = message
        self.hint = hint
        self.status = status
        self.request_id = request_id
        self.retry_after_s = retry_after_s

    def __reduce__(self) -> tuple[object, ...]:
        """Support pickling, for process pools."""
        return _restored, (type(self), self.code, self.message, self.hint, self.__dict__)


def _restored(kind: type[GatewayError], code: str, message: str, hint: str, state: dict[str, object]) -> GatewayError:
    error = kind(code, message, hint)
    error.__dict__.update(state)
    return error


class InvalidRequestError(GatewayError):
    """A field is missing or invalid."""

    error_code = "invalid_request"


class UnauthorizedError(GatewayError):
    """The API key is missing or unknown."""

    error_code = "unauthorized"


class ForbiddenError(GatewayError):
    """The key does not allow this: by its scope or its ROIs."""

    error_code = "forbidden"


class UnknownRoiError(GatewayError):
    """The ROI was never fitted."""

    error_code = "unknown_roi"


class UnknownImageError(GatewayError):
    """The ROI does not have this image."""

    error_code = "unknown_image"


class ImageConflictError(GatewayError):
    """The image is stored with the other label."""

    error_code = "image_conflict"


class ModelMismatchError(GatewayError):
    """The memory bank was made with another model than the served one."""

    error_code = "model_mismatch"


class UnknownVersionError(GatewayError):
    """The version of the ROI is not kept, or damaged."""

    error_code = "unknown_version"


class TrainedOfflineError(GatewayError):
    """The detector of the ROI is trained offline and cannot learn OK images at the gateway."""

    error_code = "trained_offline"


class TooLargeError(GatewayError):
    """A body, an image or a number of images is over the limit."""

    error_code = "too_large"


class UnsupportedImageError(GatewayError):
    """The file is not an image, is damaged, or has an unsupported format."""

    error_code = "unsupported_image"


class SlowBodyError(GatewayError):
    """The request arrived too slowly."""

    error_code = "slow_body"


class OverloadedError(GatewayError):
    """Too much work is queued to serve the request in time."""

    error_code = "overloaded"


class ShuttingDownError(GatewayError):
    """The gateway is about to end and accepts no more work."""

    error_code = "shutting_down"


class EngineUnavailableError(GatewayError):
    """The engine that computes tokens is unavailable."""

    error_code = "engine_unavailable"


class EngineTimeoutError(EngineUnavailableError):
    """The engine did not answer within the deadline."""

    error_code = "engine_timeout"


class StorageUnavailableError(GatewayError):
    """The object store does not answer. Nothing was changed; inspections of known versions go on."""

    error_code = "storage_unavailable"


class ArtifactCorruptError(GatewayError):
    """A stored artifact fails its checksum, and no older version is undamaged."""

    error_code = "artifact_corrupt"


class NewerFormatError(GatewayError):
    """A newer gateway wrote the artifact."""

    error_code = "newer_format"


class StorageFullError(GatewayError):
    """Nothing could be stored. Earlier data is unchanged."""

    error_code = "storage_full"


def _kinds(kind: type[GatewayError]) -> Iterator[type[GatewayError]]:
    for each in kind.__subclasses__():
        yield each
        yield from _kinds(each)


BY_CODE: dict[str, type[GatewayError]] = {kind.error_code: kind for kind in _kinds(GatewayError)}
"""Class of each error code. A code that is not listed, of a newer gateway, becomes a `GatewayError`."""
