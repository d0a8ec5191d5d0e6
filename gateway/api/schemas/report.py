"""Body of the report of an ROI."""

from typing import Any

from pydantic import BaseModel, Field

from gateway.api.schemas.drift import DriftAnswer
from gateway.api.schemas.rois import RoiDetail


class BankAnswer(BaseModel):
    """How the memory bank or the student-teacher model was made. Values that only a bank has are 0 for the latter."""

    extractor: str
    token_hw: tuple[int, int]
    dim: int
    k: int
    p_score: float
    n_tokens_total: int


class ReportAnswer(BaseModel):
    """Answers of the other endpoints about an ROI, taken at the same time."""

    role_id: str
    roi_id: str
    recipe_id: str
    made_at: str
    gateway: str = Field(description="version of the gateway")
    roi: RoiDetail
    bank: BankAnswer
    drift: DriftAnswer
    drift_needs: int = Field(description="smallest number of inspections that drift needs")
    audit: list[dict[str, Any]] = Field(description="the newest entries of /audit")
