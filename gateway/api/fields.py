"""Types of request fields, with messages that a GUI developer can act on."""

import math
from typing import Annotated, Any

from fastapi import File, Form, UploadFile
from pydantic import BeforeValidator, Field

from gateway.roi_key import ID_RULE


def _decimal(value: Any) -> Any:
    """Refuse what a locale may do to a number before pydantic says something less helpful."""
    if isinstance(value, bool):
        raise ValueError("a number was expected")
    if isinstance(value, str):
        text = value.strip()
        if "," in text:
            raise ValueError("use a point as the decimal separator, as in 0.2, and no thousands separator")
        try:
            value = float(text)
        except ValueError:
            raise ValueError("a number was expected, such as 0.2") from None
    if isinstance(value, int | float) and not math.isfinite(value):
        raise ValueError("a finite number was expected")
    return value


Number = Annotated[float, BeforeValidator(_decimal)]
MmPerPx = Annotated[Number, Field(gt=0, le=1000, description="millimetres per pixel of the image as sent")]
AreaMm2 = Annotated[Number, Field(ge=0, le=1e9, description="regions smaller than this many mm² are dropped")]
Percentile = Annotated[Number, Field(ge=95, le=100)]
Score = Annotated[Number, Field(ge=0, le=1000)]
RoleId = Annotated[str, Field(description=f"part or station: {ID_RULE}", examples=["disc-front"])]
RoiId = Annotated[str, Field(description=f"region of it: {ID_RULE}", examples=["pad-1"])]

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
OneImage = Annotated[UploadFile, File(description="canonical ROI: PNG, JPEG, BMP or TIFF")]
Images = Annotated[list[UploadFile], File(description="one or more canonical ROIs: PNG, JPEG, BMP or TIFF")]
