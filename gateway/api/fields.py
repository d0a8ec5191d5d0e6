"""Types of request fields. Their messages say what a client developer has to change."""

import base64
import math
import re
from contextlib import suppress
from typing import Annotated, Any

from fastapi import File, Form, UploadFile
from pydantic import BeforeValidator, Field, JsonValue
from starlette.datastructures import UploadFile as Uploaded

from gateway.store.manifest import LARGEST_MM_PER_PX
from gateway.store.roi_key import ID_PATTERN, ID_RULE

_NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)(e[+-]?\d+)?|[+-]?(nan|inf|infinity)", re.ASCII | re.IGNORECASE)
_MIME_WORD = re.compile(r"=\?utf-8\?b\?([A-Za-z0-9+/=]*)\?=", re.IGNORECASE)


def _decimal(value: Any) -> Any:
    """Refuse numbers in a local notation, with a clearer message than pydantic's."""
    if isinstance(value, bool):
        raise ValueError("expected a number")
    if isinstance(value, str):
        text = value.strip()
        if "," in text:
            raise ValueError("use a point as the decimal separator, as in 0.2, and no thousands separator")
        if _NUMBER.fullmatch(text) is None:  # float() also accepts 1_0
            raise ValueError("expected a number, such as 0.2")
        value = float(text)
    if isinstance(value, int | float) and not _is_finite(value):
        raise ValueError("expected a finite number")
    return value


def _is_finite(value: float) -> bool:
    try:
        return math.isfinite(value)
    except OverflowError:  # a JSON integer may exceed every float
        return False


def _file(value: Any) -> Any:
    """Refuse a text field where a file is expected, and replace a file name by its readable form."""
    if isinstance(value, list):
        return [_file(each) for each in value]
    if isinstance(value, str):
        raise ValueError("expected a file, but the part has no file name, so it is a text field")
    if isinstance(value, Uploaded) and value.filename:
        value.filename = _readable(value.filename)
    return value


def _readable(file_name: str) -> str:
    """Return a file name in readable form. .NET sends a non-ASCII name as a MIME word (RFC 2047)."""
    word = _MIME_WORD.fullmatch(file_name)
    if word is not None:
        with suppress(ValueError):
            file_name = base64.b64decode(word[1], validate=True).decode()
    return file_name[:255].encode(errors="replace").decode()


Number = Annotated[float, BeforeValidator(_decimal)]
MmPerPx = Annotated[Number, Field(gt=0, le=LARGEST_MM_PER_PX, description="millimetres per pixel of the image as sent")]
AreaMm2 = Annotated[Number, Field(ge=0, le=1e9, description="regions smaller than this many mm² are dropped")]
Percentile = Annotated[Number, Field(ge=95, le=100)]
Score = Annotated[Number, Field(ge=0, le=1000)]
FalseAlarmRate = Annotated[Number, Field(ge=1e-6, lt=1)]
# For the OpenAPI document only: `RoiKey` checks the rule, with a clearer message.
_ID_SCHEMA: dict[str, JsonValue] = {"pattern": ID_PATTERN, "maxLength": 64}
RoleId = Annotated[
    str,
    Field(description=f"part or station: {ID_RULE}", examples=["disc-front"], json_schema_extra=_ID_SCHEMA),
]
RoiId = Annotated[
    str, Field(description=f"region of the part: {ID_RULE}", examples=["pad-1"], json_schema_extra=_ID_SCHEMA)
]

FormRole = Annotated[RoleId, Form()]
FormRoi = Annotated[RoiId, Form()]
FormMmPerPx = Annotated[MmPerPx, Form(examples=[0.2])]
FormShape = Annotated[
    str | None,
    Form(
        description="JSON, in pixels of the image as sent: kind circle (cx, cy, r), annulus (cx, cy, r, r_inner) or "
        "rect (cx, cy, w, h, angle in degrees clockwise); cx and cy default to the centre",
        examples=['{"kind": "circle", "cx": 192, "cy": 192, "r": 180}'],
    ),
]
FormBitDepth = Annotated[
    int | None,
    Form(
        ge=8,
        le=16,
        description="bits a sample of the camera, for files of more than 8 bits: 12 scales the values 0 to 4095 of a "
        "16-bit file to 0 to 255; without it, /infer takes that of the fit",
    ),
]
OneImage = Annotated[UploadFile, BeforeValidator(_file), File(description="canonical ROI: PNG, JPEG, BMP or TIFF")]
Images = Annotated[
    list[UploadFile], BeforeValidator(_file), File(description="one or more canonical ROIs: PNG, JPEG, BMP or TIFF")
]
