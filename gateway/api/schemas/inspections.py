"""Bodies about kept inspections."""

from typing import Literal

from pydantic import BaseModel, Field

from postprocess.verdict import Verdict, VerdictReason


class KeptInspectionAnswer(BaseModel):
    """An image that was inspected lately."""

    id: int
    image_id: str = Field(description="SHA-256 of the decoded pixels: the id that the picture has as a stored image")
    file_name: str = Field(description="as sent")
    time: float = Field(description="in seconds since 1970")
    n_bytes: int
    width: int
    height: int
    verdict: Verdict
    verdict_reason: VerdictReason | None
    score: float
    threshold: float | None
    peak: float | None
    peak_threshold: float | None
    review_threshold: float | None
    version: int
    stored_label: Literal["ok", "ng"] | None = Field(
        description="label of the picture among the stored images; null if it is not stored"
    )


class KeptInspectionList(BaseModel):
    """A page of the kept inspections of an ROI."""

    role_id: str
    roi_id: str
    recipe_id: str
    keeps: bool = Field(description="whether this gateway keeps inspections: GATEWAY_KEEP_INSPECTIONS")
    total: int = Field(description="kept inspections with the verdict that was asked for")
    offset: int
    limit: int
    inspections: list[KeptInspectionAnswer]
