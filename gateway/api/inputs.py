"""Read shapes and images from a form."""

from fastapi import UploadFile

from gateway.api.json_text import require_shallow
from gateway.errors import InvalidRequestError, TooLargeError
from gateway.learning.request import ImageFile
from gateway.settings import Settings
from postprocess.roi_mask import Shape, ShapeError, parse_shape

_MAX_CHARS = 16_384
"""Limit of the JSON about one image. Valid texts have some hundred characters."""


def parsed_shape(text: str | None) -> tuple[Shape | None, list[str]]:
    """Return the shape of a form field, and warnings about it. An absent or blank field is no shape.

    Raises:
        InvalidRequestError: the text is not a valid shape.
        TooLargeError: the text is too long.
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
    """Refuse JSON about images that is too deep or too long. Parsing it would block all other requests.

    Raises:
        InvalidRequestError: the text is nested too deeply.
        TooLargeError: the text is too long.
    """
    require_shallow(text.encode(errors="replace"), name)
    limit = _MAX_CHARS * n_images
    if len(text) > limit:
        raise TooLargeError(f"{name}: {len(text)} characters for {n_images} images; the limit is {limit}")


async def read_image(upload: UploadFile, settings: Settings) -> bytes:
    """Return the bytes of an uploaded file.

    Raises:
        TooLargeError: the file is over the limit. It is refused before it is read.
    """
    _require_size(upload, settings)
    return await upload.read()


def image_file(upload: UploadFile, name: str, settings: Settings) -> ImageFile:
    """Return an uploaded file that is read when it is needed.

    Args:
        upload: the file.
        name: name for messages where the upload has none.
        settings: the limit of its size.

    Raises:
        TooLargeError: the file is over the limit.
    """
    _require_size(upload, settings)

    def read() -> bytes:
        upload.file.seek(0)
        return upload.file.read()

    return ImageFile(upload.filename or name, read)


def _require_size(upload: UploadFile, settings: Settings) -> None:
    if upload.size is not None and upload.size > settings.max_image_bytes:
        raise TooLargeError(
            f"{upload.filename}: {upload.size} bytes; the limit of one image is {settings.max_image_bytes}"
        )
