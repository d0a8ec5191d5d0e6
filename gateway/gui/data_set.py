"""The data set of an ROI, as the GUI knows it: its stored images by label and file name."""

import json
from typing import Any

from pydantic import BaseModel, ConfigDict, TypeAdapter, ValidationError

from gateway.api.fields import JsonShape, MmPerPx
from gateway.api.inputs import parsed_json
from gateway.api.json_text import without_bom
from gateway.api.validation_messages import message_of
from gateway.errors import InvalidRequestError, UnknownImageError
from gateway.process.services import Services
from gateway.store.labelled_images import LABELS, ImageRecord, Label
from gateway.store.roi_key import RoiKey
from postprocess.roi_mask import Shape, ShapeError, parse_shape


class Sample(BaseModel):
    """What the gateway reads of the metadata of an image. All of it is kept."""

    model_config = ConfigDict(extra="ignore")

    mm_per_px: MmPerPx | None = None
    shape_json: JsonShape | None = None


_SAMPLE = TypeAdapter(Sample)


def sample_of(metadata: str | None, name: str) -> Sample:
    """Return what the gateway reads of the metadata of an image.

    Args:
        metadata: JSON object as text, or None.
        name: what it is, for the message.

    Raises:
        InvalidRequestError: a value is invalid.
    """
    try:
        return _SAMPLE.validate_python({} if metadata is None else json.loads(metadata))
    except ValidationError as error:
        raise InvalidRequestError(f"{name}: {message_of(dict(error.errors()[0]))}") from error


def shape_of(given: dict[str, Any] | str | None, name: str) -> Shape | None:
    """Return a shape from JSON or its text; None where the image is the part. Unknown keys are ignored.

    Raises:
        InvalidRequestError: it is not a valid shape.
        TooLargeError: the text is too long.
    """
    text = json.dumps(given) if isinstance(given, dict) else given
    if text is None or text.strip() in ("", "null"):
        return None
    parsed_json(text, name, 1)
    try:
        return parse_shape(without_bom(text))[0]
    except ShapeError as error:
        raise InvalidRequestError(f"{name}: {error}") from error


def file_name(record: ImageRecord) -> str:
    """Return the name of a stored image in its data set: no other image has it, and it stays the same."""
    return f"{record.id}.{record.extension}"


def find(services: Services, key: RoiKey, label: Label, name: str) -> ImageRecord:
    """Return the image of a data set with a label and a file name. Blocks.

    Raises:
        UnknownImageError: there is none.
        ArtifactCorruptError: its record is damaged.
    """
    record = services.store.images(key).record(name.partition(".")[0].lower())
    if record is None or record.label != label or file_name(record) != name.lower():
        raise UnknownImageError(f"{key} has no file {name[:100]!r} with the label {label}", "GET /datasets/list.")
    return record


def records(services: Services, key: RoiKey, label: Label) -> list[ImageRecord]:
    """Return the images of a data set with a label, oldest first. Blocks."""
    return [record for record in services.store.images(key).records().stored if record.label == label]


def listed(services: Services, key: RoiKey) -> dict[str, Any]:
    """Return the data set by class, as the GUI lists it. Blocks."""
    stored = services.store.images(key).records().stored
    classes: dict[str, Any] = {}
    for label in LABELS:
        found = [record for record in stored if record.label == label]
        classes[label] = {
            "count": len(found),
            "files": [file_name(record) for record in found],
            "meta": {file_name(record): record.metadata is not None for record in found},
        }
    return {"classes": classes}
