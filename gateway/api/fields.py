"""Types of request fields. Their messages say what a client developer has to change."""

import base64
import math
import re
from contextlib import suppress
from typing import Annotated, Any, Literal

from fastapi import File, Form, Header, Query, UploadFile
from pydantic import BeforeValidator, Field, JsonValue
from starlette.datastructures import UploadFile as Uploaded

from gateway.setting_groups.limits import MOST_TILES
from gateway.store.ids import ID_PATTERN, ID_RULE, LONGEST_ID
from gateway.store.manifest import LARGEST_MM_PER_PX
from gateway.store.roi_key import DEFAULT_RECIPE

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
    number = float(value) if isinstance(value, str) else value
    if isinstance(number, int | float) and not _is_finite(number):
        raise ValueError("expected a finite number")
    return value  # as it was sent, for the message of a limit


def _is_finite(value: float) -> bool:
    try:
        return math.isfinite(value)
    except OverflowError:  # a JSON integer may exceed every float
        return False


def _null(value: Any) -> Any:
    """Replace an empty text and the text null by None."""
    return None if isinstance(value, str) and value.strip() in ("", "null") else value


OR_NULL = BeforeValidator(_null)
"""For an optional field of a form or query, where null is a text. .NET clients send it for a value that is not set."""


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


_DECIMAL = BeforeValidator(_decimal)
"""Last in a type, so that it runs before the limits and the document has them in its own words."""
_LARGEST_SCORE = 1000
_PIXEL_THRESHOLDS = ("peak", "score", "ok_pixels")


def _pixel_threshold(value: Any) -> Any:
    """Refuse everything but the names and numbers, in one message instead of one per alternative."""
    if value is None or value in _PIXEL_THRESHOLDS:
        return value
    expected = "expected 'peak', 'score', 'ok_pixels' or a number from 0 to 1000"
    if isinstance(value, bool | list | dict):
        raise ValueError(expected)
    try:
        number = float(_decimal(value))
    except ValueError as error:
        raise ValueError(f"{error}; {expected}" if "," in str(value) else expected) from None
    if not 0 <= number <= _LARGEST_SCORE:
        raise ValueError(expected)
    return number


def _tiles(value: Any) -> Any:
    """Refuse everything but ``auto`` and whole numbers, in one message instead of one per alternative."""
    if value is None or value == "auto":
        return value
    text = str(value).strip()
    if not (text.isascii() and text.isdecimal() and 1 <= int(text[:9]) <= MOST_TILES):
        raise ValueError(f"expected 'auto' or a whole number from 1 to {MOST_TILES}")
    return int(text)


def _shape_text(value: Any) -> Any:
    """Refuse everything but a text and an object, in one message instead of one per alternative."""
    if value is None or isinstance(value, str | dict):
        return value
    raise ValueError("expected a JSON object, or its text")


MmPerPx = Annotated[
    float, Field(gt=0, le=LARGEST_MM_PER_PX, description="millimetres per pixel of the image as sent"), _DECIMAL
]
AreaMm2 = Annotated[float, Field(ge=0, le=1e9, description="regions smaller than this many mm² are dropped"), _DECIMAL]
Percentile = Annotated[float, Field(ge=95, le=100), _DECIMAL]
Neighbours = Annotated[int, Field(ge=1, le=100)]
BlurSigma = Annotated[float, Field(ge=0, le=20), _DECIMAL]
CoresetRate = Annotated[float, Field(gt=0, le=1), _DECIMAL]
Tiles = Annotated[Literal["auto"] | Annotated[int, Field(ge=1, le=MOST_TILES)], BeforeValidator(_tiles)]
BitDepth = Annotated[int, Field(ge=8, le=16)]
InputSize = Annotated[int, Field(ge=14, le=4096)]
Seed = Annotated[int, Field(ge=0, lt=2**32)]
EntryCount = Annotated[int, Field(ge=1, le=10_000)]
Score = Annotated[float, Field(ge=0, le=_LARGEST_SCORE), _DECIMAL]
PixelThreshold = Annotated[Literal["peak", "score", "ok_pixels"] | Score, BeforeValidator(_pixel_threshold)]
JsonShape = Annotated[dict[str, Any] | str, BeforeValidator(_shape_text)]
FalseAlarmRate = Annotated[float, Field(ge=1e-6, lt=1), _DECIMAL]
# For the OpenAPI document only: `RoiKey` checks the rule, with a clearer message.
_ID_SCHEMA: dict[str, JsonValue] = {"pattern": ID_PATTERN, "maxLength": LONGEST_ID}
RoleId = Annotated[
    str,
    Field(description=f"part or station: {ID_RULE}", examples=["disc-front"], json_schema_extra=_ID_SCHEMA),
]
RoiId = Annotated[
    str, Field(description=f"region of the part: {ID_RULE}", examples=["pad-1"], json_schema_extra=_ID_SCHEMA)
]
RecipeId = Annotated[
    str,
    Field(
        description=f"variant of the product: {ID_RULE}. Recipes share nothing. Without it the header X-Recipe-Id "
        f"counts, and without that {DEFAULT_RECIPE!r}",
        json_schema_extra=_ID_SCHEMA,
    ),
]

FormRole = Annotated[RoleId, Form()]
FormRoi = Annotated[RoiId, Form()]
FormRecipe = Annotated[RecipeId | None, OR_NULL, Form()]
QueryRecipe = Annotated[RecipeId | None, OR_NULL, Query()]
HeaderRecipe = Annotated[
    str | None,
    Header(
        alias="X-Recipe-Id",
        description="recipe of a request without recipe_id. What is not ASCII is percent-encoded UTF-8",
    ),
]
FormMmPerPx = Annotated[MmPerPx, Form(examples=[0.2])]
FormShape = Annotated[
    str | None,
    OR_NULL,
    Form(
        description="JSON, in pixels of the image as sent: kind circle (cx, cy, r), annulus (cx, cy, r, r_inner) or "
        "rect (w, h, angle in degrees clockwise, and cx, cy or the top left corner x, y); cx and cy default to the "
        "centre",
        examples=['{"kind": "circle", "cx": 192, "cy": 192, "r": 180}'],
    ),
]
FormBitDepth = Annotated[
    BitDepth | None,
    OR_NULL,
    Form(
        description="bits per sample of the camera, for files with more than 8 bits: 12 scales the values 0 to 4095 of "
        "a 16-bit file to 0 to 255; kept with the ROI, and /infer uses that of the fit",
    ),
]
FormTiles = Annotated[
    Tiles | None,
    OR_NULL,
    Form(
        description="tiles that an image is cut into, so that small defects of a large image are not lost: `auto` as "
        "many as keep its resolution, at most GATEWAY_MAX_TILES, and 1 below 1.5 × the input of the network; a number: "
        "at most that many; 1 the whole image. An inspection takes as many times as long. Without it, that of the ROI, "
        "and `auto` for a new one",
    ),
]
OneImage = Annotated[UploadFile, BeforeValidator(_file), File(description="canonical ROI: PNG, JPEG, BMP or TIFF")]
Images = Annotated[
    list[UploadFile], BeforeValidator(_file), File(description="one or more canonical ROIs: PNG, JPEG, BMP or TIFF")
]
OptionalImages = Annotated[
    list[UploadFile],
    BeforeValidator(_file),
    File(
        default_factory=list,
        description="canonical ROIs: PNG, JPEG, BMP or TIFF; without any, the stored OK images are learned",
    ),
]
