"""Bodies of what there is and how it does."""

from typing import Literal

from pydantic import BaseModel, Field

from gateway.store.audit import Action
from gateway.store.manifest import DetectorKind, Method, OkSource, ScoreSummary, WeightsRecipe


class HealthAnswer(BaseModel):
    """The process is alive."""

    status: Literal["ok"]
    device: Literal["cuda", "cpu"]
    model: str
    version: str
    engine: Literal["embedded", "triton"]
    runtime: str = Field(description="what computes tokens, such as openvino-bf16")
    search: str = Field(description="what finds nearest neighbours")
    model_fingerprint: str | None = Field(description="null while no model is loaded or reached")
    model_weights: Literal["hub", "file", "seed"] | None = Field(description="seed: random, scores mean nothing")


class ReadyAnswer(BaseModel):
    """Whether inspections can be served now."""

    ready: bool
    engine: str = Field(description="of the token model: 'ready', or why not")
    storage: str = Field(description="'ready', or why not")
    process: str = Field(description="'ready', or why not: it is shutting down")
    networks: list[str] = Field(
        description="student-teacher networks in use, each with 'ready' or why not; ROIs of others do without them"
    )
    degraded: list[str] = Field(
        description="ROIs of which this process found something damaged: inspections of them are answered by the last "
        "whole version, or refused"
    )


class CalibrationSummary(BaseModel):
    """The calibration in use."""

    threshold: float
    pixel_threshold: float
    pixel_threshold_source: Literal["score", "ok_pixels", "given"]
    p99_ok: float
    p5_ng: float | None
    area_mm2_thr: float
    score_percentile: float
    method: Method
    ok_source: OkSource
    n_ok: int
    n_ng: int
    false_alarm_rate: float | None
    guaranteed: bool | None
    expected_false_alarm_rate: float | None
    expected_false_alarm_interval: tuple[float, float] | None
    verdict_false_alarm_rate: float | None
    verdict_false_alarm_interval: tuple[float, float] | None
    version: int
    created_at: str
    stale: bool = Field(description="made for an earlier memory bank than the one in use")


class RoiSummary(BaseModel):
    """A fitted ROI."""

    role_id: str
    roi_id: str
    version: int
    created_at: str
    detector: DetectorKind
    n_ok_total: int = Field(description="OK images learned; of a student-teacher model, those of its validation")
    n_embeddings: int = Field(description="0 where there is no memory bank")
    coreset_rate_applied: float
    mm_per_px: float
    checksum: str
    model_fingerprint: str
    ok_scores: ScoreSummary | None
    n_ok_excluded: int
    n_suspects: int = Field(description="learned OK images that look unlike the others")
    spatial_weights: WeightsRecipe
    weights_stale: bool = Field(description="the manual box or the weights' settings changed since the fit")
    blind_area_mm2: float = Field(description="largest defect that the percentile hides from the score")
    calibration: CalibrationSummary | None
    degraded: bool = Field(description="something stored of it is damaged; warnings say what, and what answers")
    warnings: list[str]


class OkImageAnswer(BaseModel):
    """An OK image that an ROI has learned."""

    sha256: str
    file_name: str
    width: int
    height: int
    added_in: int
    score: float | None = Field(description="against the bank without it")
    robust_z: float | None
    suspect: bool


class ExcludedImageAnswer(BaseModel):
    """An image that was sent as OK and is kept out of the bank."""

    sha256: str
    file_name: str
    width: int
    height: int
    excluded_in: int
    reason: Literal["suspect"]
    score: float = Field(description="against the bank of all the others, when it was excluded")
    robust_z: float


class VersionAnswer(BaseModel):
    """A version that is kept: POST …/rollback makes it the current one."""

    version: int
    created_at: str
    detector: DetectorKind
    n_ok: int = Field(description="OK images that it learned")
    n_embeddings: int
    current: bool = Field(description="whether it is in use")


class RoiDetail(RoiSummary):
    """A fitted ROI and what it learned from."""

    covering_radius: float
    seed: int
    heatmap_max: float
    versions: list[VersionAnswer] = Field(description="kept, newest first; one whose manifest is damaged is left out")
    images: list[OkImageAnswer]
    excluded_images: list[ExcludedImageAnswer]


class RoiList(BaseModel):
    """Every fitted ROI."""

    rois: list[RoiSummary]
    unreadable: list[str] = Field(description="ROIs whose stored artifacts are damaged, and how")


class AuditEntry(BaseModel):
    """A change of an ROI."""

    id: str
    time: str = Field(description="when it was about to be made, UTC")
    role_id: str
    roi_id: str
    action: Action
    actor: str = Field(description="name of the API key")
    client: str = Field(description="address that asked")
    request_id: str = Field(description="X-Request-ID")
    version_before: int | None
    version_after: int | None
    threshold_before: float | None
    threshold_after: float | None
    n_ok_before: int
    n_ok_after: int
    outcome: Literal["done", "failed", "unknown"] = Field(
        description="unknown: at work now, or cut off; the version in use tells whether it was made"
    )
    error: str | None = Field(description="code of what it failed with")


class AuditAnswer(BaseModel):
    """What was changed of an ROI, by whom, newest first; also of one that was deleted."""

    role_id: str
    roi_id: str
    entries: list[AuditEntry]
