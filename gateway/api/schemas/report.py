"""Body of the report of an ROI."""

from pydantic import BaseModel, Field

from gateway.api.schemas.drift import DriftAnswer
from gateway.api.schemas.rois import AuditEntry, RoiDetail


class BankAnswer(BaseModel):
    """How the memory bank or the student-teacher model was made. Values that only a bank has are 0 for the latter."""

    extractor: str
    token_hw: tuple[int, int]
    dim: int
    k: int
    p_score: float
    n_tokens_total: int


class PeaksAnswer(BaseModel):
    """Histogram of the peaks of the OK images that the calibration was made from."""

    edges: list[float]
    ok_images: list[int]


class ReportAnswer(BaseModel):
    """Answers of the other endpoints about an ROI, taken at the same time."""

    role_id: str
    roi_id: str
    recipe_id: str
    made_at: str
    gateway: str = Field(description="version of the gateway")
    roi: RoiDetail
    bank: BankAnswer
    peaks: PeaksAnswer | None = Field(description="null before a calibration, and for one that the peak did not decide")
    drift: DriftAnswer
    drift_needs: int = Field(description="smallest number of inspections that drift needs")
    audit: list[AuditEntry] = Field(description="the newest entries of /audit")
