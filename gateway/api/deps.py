"""What routes share: the services of their application, and reading what a form brought."""

from typing import Annotated

from fastapi import Depends, Request, UploadFile

from gateway.api.json_depth import require_shallow
from gateway.api.security.keys import Caller
from gateway.errors import InvalidRequestError, TooLargeError
from gateway.learning.request import ImageFile
from gateway.process.services import Services
from gateway.settings import Settings
from postprocess.roi_mask import Shape, ShapeError, parse_shape


def _services(request: Request) -> Services:
    services: Services = request.app.state.services
    return services


def _caller(request: Request) -> Caller:
    caller: Caller = request.state.caller
    return caller


_MAX_CHARS = 16_384
"""Of the JSON about one image; what is served has some hundred."""

ServicesDep = Annotated[Services, Depends(_services)]
CallerDep = Annotated[Caller, Depends(_caller)]
"""Who asks. Its `roi` is the one way from the ids of a request to an `RoiKey`."""


def parsed_shape(text: str | None) -> tuple[Shape | None, list[str]]:
    """A shape and warnings about it from a form field that may be absent or blank.

    Raises:
        InvalidRequestError: it is not a shape.
    """
    if text is None or not text.strip():
        return None, []
    require_small(text, "shape", 1)
    try:
        return parse_shape(text)
    except ShapeError as error:
        raise InvalidRequestError(
            f"shape: {error}", 'Send JSON such as {"kind": "circle", "cx": 192, "cy": 192, "r": 180}, or leave it out.'
        ) from error


def require_small(text: str, name: str, n_images: int) -> None:
    """Refuse what is too deep or too long for what it says of some images; parsing it would hold up everybody.

    Raises:
        InvalidRequestError: nested too deeply.
        TooLargeError: too long.
    """
    require_shallow(text.encode(errors="replace"), name)
    limit = _MAX_CHARS * n_images
    if len(text) > limit:
        raise TooLargeError(f"{name}: {len(text)} characters for {n_images} images; at most {limit} are served")


def image_file(upload: UploadFile, name: str, settings: Settings) -> ImageFile:
    """Return an uploaded file that is read when it is needed.

    Args:
        upload: the file.
        name: name for messages where the upload has none.
        settings: the limit of its size.

    Raises:
        TooLargeError: it is over the limit.
    """
    _require_size(upload, settings)

    def read() -> bytes:
        upload.file.seek(0)
        return upload.file.read()

    return ImageFile(upload.filename or name, read)


async def read_image(upload: UploadFile, settings: Settings) -> bytes:
    """The bytes of an uploaded file.

    Raises:
        TooLargeError: over the limit; decided before they are read.
    """
    _require_size(upload, settings)
    return await upload.read()


def _require_size(upload: UploadFile, settings: Settings) -> None:
    if upload.size is not None and upload.size > settings.max_image_bytes:
        raise TooLargeError(
            f"{upload.filename}: {upload.size} bytes; at most {settings.max_image_bytes} are served for one image"
        )
