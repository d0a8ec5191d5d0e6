"""Read shapes, items and images from a form."""

from collections.abc import Sequence
from typing import Any

from fastapi import UploadFile

from gateway.api.json_text import parse_json, require_shallow, without_bom
from gateway.api.known_fields import known_hint, unknown_fields
from gateway.errors import InvalidRequestError, TooLargeError
from gateway.learning.request import ImageFile
from gateway.settings import Settings
from postprocess.roi_mask import KEYS, Shape, ShapeError, parse_shape, shape_text

_MAX_CHARS = 16_384
"""Limit of the JSON about one image. Valid texts have some hundred characters."""


def parsed_shape(text: str | None) -> tuple[Shape | None, str | None]:
    """Return the shape of a form field, and the JSON text to keep. An absent or blank field, or null, is no shape.

    A rect with a corner is kept with its centre, which gateways of earlier releases read too.

    Raises:
        InvalidRequestError: the text is not a valid shape, or has an unknown key.
        TooLargeError: the text is too long.
    """
    if text is None or text.strip() in ("", "null"):
        return None, None
    given = parsed_json(text, "shape", 1)
    message = unknown_fields(given, KEYS, "key") if isinstance(given, dict) else None
    if message is not None:
        raise InvalidRequestError(f"shape: {message}", known_hint(KEYS))
    try:
        shape, _ = parse_shape(without_bom(text))
    except ShapeError as error:
        raise InvalidRequestError(
            f"shape: {error}", 'Send JSON such as {"kind": "circle", "cx": 192, "cy": 192, "r": 180}, or leave it out.'
        ) from error
    has_corner = given.get("x") is not None or given.get("y") is not None
    return shape, shape_text(shape) if has_corner else without_bom(text)


def parsed_json(text: str, name: str, n_images: int) -> Any:
    """Parse JSON about images. A text that is too deep or too long is refused, because it would block other requests.

    Raises:
        InvalidRequestError: the text is not JSON, is nested too deeply, or has a key twice in one object.
        TooLargeError: the text is too long.
    """
    require_shallow(text.encode(errors="replace"), name)
    limit = _MAX_CHARS * n_images
    if len(text) > limit:
        raise TooLargeError(f"{name}: {len(text)} characters for {n_images} images; the limit is {limit}")
    return parse_json(text, name)


def metadata_texts(texts: Sequence[str], n_images: int) -> list[str | None]:
    """Return the metadata of each image: JSON texts as sent. An empty text and null are no metadata.

    Raises:
        InvalidRequestError: there are not as many as images, or one is not a JSON object.
        TooLargeError: one is too long.
    """
    if texts and len(texts) != n_images:
        raise InvalidRequestError(
            f"metas: {len(texts)} for {n_images} images",
            "Send one part named 'metas' for each image, in the same order, or none at all.",
        )
    found: list[str | None] = []
    for i, text in enumerate(texts, 1):
        given = None if text.strip() in ("", "null") else parsed_json(text, f"metas: number {i}", 1)
        if given is not None and not isinstance(given, dict):
            raise InvalidRequestError(f"metas: number {i} is not a JSON object", "Send an object such as {}.")
        found.append(None if given is None else without_bom(text))
    return found or [None] * n_images


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
