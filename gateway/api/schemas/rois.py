"""Bodies about fitted ROIs: summary, detail, audit trail, rollback, deletion."""

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from gateway.api.fields import Seed
from gateway.api.schemas.requests import RequestBody
from gateway.monitoring.drift.measure import Signal
from gateway.store.audit import Action
from gateway.store.manifest import DetectorKind, Method, OkSource, PixelThresholdSource, ScoreSummary, WeightsRecipe


class CalibrationSummary(BaseModel):
    """The calibration in use."""

    threshold: float
    peak_threshold: float = Field(description="an image has a region exactly if its peak is at or above it")
    pixel_threshold: float = Field(description="another name of peak_threshold")
    pixel_threshold_source: PixelThresholdSource
    review_threshold: float | None = Field(description="lower end of the review band; null without one")
    review_rate: float | None = Field(description="share of good parts expected at or above it")
    p99_ok: float
    p5_ng: float | None
    area_mm2_thr: float
    score_percentile: float
    shape: str | None = Field(description="shape that it was made for, as JSON; null for that of the OK images")
    method: Method
    ok_source: OkSource
    n_ok: int
    n_ng: int
    missed_ng: list[float] = Field(description="scores of the NG images that passed by their score")
    false_alarm_rate: float | None
    guaranteed: bool | None
    expected_false_alarm_rate: float | None
    expected_false_alarm_interval: tuple[float, float] | None
    verdict_false_alarm_rate: float | None
    verdict_false_alarm_interval: tuple[float, float] | None
    version: int
    created_at: str
    stale: bool = Field(description="whether it was made for an earlier memory bank than the one in use")


class RoiSummary(BaseModel):
    """A fitted ROI."""

    role_id: str
    roi_id: str
    recipe_id: str
    version: int
    created_at: str
    detector: DetectorKind
    n_ok_total: int = Field(description="learned OK images; for a student-teacher model, its validation images")
    n_embeddings: int = Field(description="0 without a memory bank")
    coreset_rate_applied: float
    tiles: tuple[int, int] = Field(description="rows and columns of tiles that an image is cut into; 1, 1: the whole")
    mm_per_px: float
    checksum: str
    model_fingerprint: str
    ok_scores: ScoreSummary | None
    n_ok_excluded: int
    n_suspects: int = Field(description="number of learned OK images that look unlike the others")
    spatial_weights: WeightsRecipe
    weights_stale: bool = Field(
        description="whether the manual box or the settings of the weights changed since the fit"
    )
    blind_area_mm2: float = Field(description="largest defect that the percentile hides from the score")
    calibration: CalibrationSummary | None
    degraded: bool = Field(
        description="whether files of the ROI are damaged; warnings name them and the version that answers"
    )
    drift_alarms: list[Signal] = Field(description="signals whose drift chance does not explain; see …/drift")
    warnings: list[str]


class OkImageAnswer(BaseModel):
    """A learned OK image of an ROI."""

    sha256: str
    file_name: str
    width: int
    height: int
    added_in: int
    score: float | None = Field(description="score against the bank without this image")
    robust_z: float | None
    suspect: bool


class ExcludedImageAnswer(BaseModel):
    """An image that was sent as OK and is excluded from the bank."""

    sha256: str
    file_name: str
    width: int
    height: int
    excluded_in: int
    reason: Literal["suspect"]
    score: float = Field(description="score against the bank of all other images, when it was excluded")
    robust_z: float


class VersionAnswer(BaseModel):
    """A kept version. POST …/rollback makes it the current one."""

    version: int
    created_at: str
    detector: DetectorKind
    n_ok: int = Field(description="number of learned OK images")
    n_embeddings: int
    current: bool = Field(description="whether it is in use")


class RoiDetail(RoiSummary):
    """A fitted ROI with its OK images and versions."""

    covering_radius: float
    seed: Seed
    heatmap_max: float
    shape: str | None = Field(
        description="shape that the learned images were sent with, as JSON; null without one, or if it is not the same "
        "for all"
    )
    versions: list[VersionAnswer] = Field(
        description="kept versions, newest first; without those whose manifest is damaged"
    )
    images: list[OkImageAnswer]
    excluded_images: list[ExcludedImageAnswer]


class UnfittedRoi(BaseModel):
    """An ROI that has stored images and no version yet. It does not inspect."""

    role_id: str
    roi_id: str
    recipe_id: str
    state: Literal["stored_images_only"] = "stored_images_only"
    n_ok: int = Field(description="stored OK images: POST /fit_ok without files learns them")
    n_ng: int = Field(description="stored NG images")


class RoiList(BaseModel):
    """Every fitted ROI, and those that have stored images alone."""

    rois: list[RoiSummary]
    unfitted: list[UnfittedRoi] = Field(description="ROIs with stored images that were never fitted")
    unreadable: list[str] = Field(description="ROIs with damaged files, and what is damaged")


class AuditEntry(BaseModel):
    """A change of an ROI."""

    id: str
    time: str = Field(description="when the change started, UTC")
    role_id: str
    roi_id: str
    recipe_id: str
    action: Action
    actor: str = Field(description="name of the API key")
    client: str = Field(description="address of the client")
    request_id: str = Field(description="X-Request-ID")
    version_before: int | None
    version_after: int | None
    threshold_before: float | None
    threshold_after: float | None
    n_ok_before: int
    n_ok_after: int
    outcome: Literal["done", "failed", "unknown"] = Field(
        description="unknown: still running, or interrupted; the version in use tells whether it was made"
    )
    n_images: int | None = Field(None, description="stored images that the change concerns")
    label: str | None = Field(None, description="their label after it; null where they were deleted")
    image: str | None = Field(None, description="id of the image, where it is one")
    error: str | None = Field(description="code of the error if it failed")


class AuditAnswer(BaseModel):
    """The changes of an ROI, newest first, also of a deleted ROI."""

    role_id: str
    roi_id: str
    recipe_id: str
    entries: list[AuditEntry]


class RollbackRequest(RequestBody):
    """The version to return to."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"version": 3}]})

    version: int = Field(ge=1, lt=2**31, description="one of the `versions` in GET /rois/{role_id}/{roi_id}")


class RollbackAnswer(BaseModel):
    """The version in use after a rollback."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "role_id": "disc-front",
                    "roi_id": "pad-1",
                    "recipe_id": "default",
                    "version_before": 5,
                    "version": 3,
                    "n_ok_total": 30,
                    "calibration": "current",
                    "threshold": 0.63,
                    "warnings": [],
                }
            ]
        }
    )

    role_id: str
    roi_id: str
    recipe_id: str
    version_before: int
    version: int
    n_ok_total: int
    calibration: Literal["none", "current", "stale"] = Field(description="state of the calibration of that version")
    threshold: float | None
    warnings: list[str]


class Deleted(BaseModel):
    """A deleted ROI. Its OK images, versions and calibration are deleted as well."""

    role_id: str
    roi_id: str
    recipe_id: str
    deleted: Literal[True] = True
