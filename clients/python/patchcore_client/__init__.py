"""Client of the PatchCore gateway: `PatchcoreClient`, and `AsyncPatchcoreClient` with the same methods."""

from patchcore_client._async.client import AsyncPatchcoreClient
from patchcore_client._sync.client import PatchcoreClient
from patchcore_client.calls import BatchItem
from patchcore_client.errors import (
    AnswerError,
    ArtifactCorruptError,
    ConnectError,
    EngineTimeoutError,
    EngineUnavailableError,
    ForbiddenError,
    GatewayError,
    ImageConflictError,
    ImageError,
    InvalidRequestError,
    ModelMismatchError,
    NewerFormatError,
    OverloadedError,
    PatchcoreError,
    ShuttingDownError,
    SlowBodyError,
    StorageFullError,
    StorageUnavailableError,
    TimeoutError,  # noqa: A004
    TooLargeError,
    TrainedOfflineError,
    UnauthorizedError,
    UnknownImageError,
    UnknownRoiError,
    UnknownVersionError,
    UnsupportedImageError,
)
from patchcore_client.images import encode
from patchcore_client.inspection import Inspection
from patchcore_client.retries import Retries

__version__ = "0.1.0"

__all__ = [
    "AnswerError",
    "ArtifactCorruptError",
    "AsyncPatchcoreClient",
    "BatchItem",
    "ConnectError",
    "EngineTimeoutError",
    "EngineUnavailableError",
    "ForbiddenError",
    "GatewayError",
    "ImageConflictError",
    "ImageError",
    "Inspection",
    "InvalidRequestError",
    "ModelMismatchError",
    "NewerFormatError",
    "OverloadedError",
    "PatchcoreClient",
    "PatchcoreError",
    "Retries",
    "ShuttingDownError",
    "SlowBodyError",
    "StorageFullError",
    "StorageUnavailableError",
    "TimeoutError",
    "TooLargeError",
    "TrainedOfflineError",
    "UnauthorizedError",
    "UnknownImageError",
    "UnknownRoiError",
    "UnknownVersionError",
    "UnsupportedImageError",
    "__version__",
    "encode",
]
