"""Bodies of the report of an ROI."""

from typing import Any

from pydantic import BaseModel, Field

from gateway.api.schemas.drift import DriftAnswer
from gateway.api.schemas.status import RoiDetail


class BankAnswer(BaseModel):
    """How the memory bank or the student-teacher model was made; what only a bank has is 0 for the latter."""

    extractor: str
    token_hw: tuple[int, int]
    dim: int
    k: int
    p_score: float
    n_tokens_total: int


class ReportAnswer(BaseModel):
    """What other endpoints answer of an ROI, of one moment."""

    role_id: str
    roi_id: str
    made_at: str
    gateway: str = Field(description="its version")
    roi: RoiDetail
    bank: BankAnswer
    drift: DriftAnswer
    drift_needs: int = Field(description="inspections without which nothing is said of drift")
    audit: list[dict[str, Any]] = Field(description="the newest entries of /audit")
