"""Bodies of requests and answers, for validation and for the OpenAPI document."""

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from gateway.api.fields import AreaMm2, FalseAlarmRate, MmPerPx, Number, Percentile, RoiId, RoleId, Score
from gateway.audit import Action
from gateway.calibration import Method, Verdict, VerdictReason
from gateway.drift import Signal
from gateway.fitting import CalibrationState
from gateway.manifest import DetectorKind, ScoreSummary
from gateway.spatial import WeightsRecipe


class ErrorBody(BaseModel):
    """What is wrong with which value, and what to do."""

    code: str
    message: str
    hint: str


class ErrorEnvelope(BaseModel):
    """The one form of every error."""

    error: ErrorBody


class SuspectAnswer(BaseModel):
    """An OK image that looks unlike the others: look at it."""

    sha256: str
    file_name: str
    score: float = Field(description="against the bank without it")
    robust_z: float = Field(description="(score − median) / (1.4826 · MAD) of all OK scores; suspect above 5")
    excluded: bool = Field(description="kept out of the bank, as exclude_suspects asked")


class FitAnswer(BaseModel):
    """What was learned."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "role_id": "disc-front",
                    "roi_id": "pad-1",
                    "n_ok_total": 30,
                    "n_ok_added": 30,
                    "duplicates": 0,
                    "n_embeddings": 437,
                    "n_tokens_total": 21870,
                    "coreset_rate": 0.02,
                    "coreset_rate_applied": 0.01998,
                    "covering_radius": 0.81,
                    "seed": 0,
                    "checksum": "5d41…",
                    "version": 1,
                    "token_shape": [27, 27],
                    "ok_scores": {"n": 30, "mean": 0.52, "p50": 0.51, "p95": 0.6, "p99": 0.63, "max": 0.64},
                    "n_ok_excluded": 0,
                    "suspect_images": [
                        {
                            "sha256": "9f86…",
                            "file_name": "pad-1_0017.png",
                            "score": 0.64,
                            "robust_z": 5.4,
                            "excluded": False,
                        }
                    ],
                    "spatial_weights": {
                        "kind": "manual",
                        "box": [16, 112, 16, 112],
                        "box_space": 128,
                        "min_weight": 0.1,
                        "max_weight": 2.0,
                    },
                    "calibration": "none",
                    "warnings": [],
                }
            ]
        }
    )

    role_id: str
    roi_id: str
    n_ok_total: int = Field(description="OK images that the ROI has learned, all together")
    n_ok_added: int
    duplicates: int = Field(description="images of this request that were known, or sent twice")
    n_embeddings: int = Field(description="tokens in the memory bank, after the coreset")
    n_tokens_total: int = Field(description="tokens of all OK images, before the coreset")
    coreset_rate: float
    coreset_rate_applied: float
    covering_radius: float = Field(description="distance of the farthest OK token to the bank, 0 to 2")
    seed: int
    checksum: str = Field(description="SHA-256 of the bank; the same images, order and seed give the same")
    version: int
    token_shape: tuple[int, int]
    ok_scores: ScoreSummary | None = Field(
        description="score of each OK image against the bank without it; null while there is only one"
    )
    n_ok_excluded: int = Field(description="images sent as OK that are kept out of the bank; not in n_ok_total")
    suspect_images: list[SuspectAnswer] = Field(
        description="worst first; judged from 10 images on. Those that exclude_suspects took out come before those "
        "that stand out among the rest"
    )
    spatial_weights: WeightsRecipe
    calibration: CalibrationState = Field(
        description="what this fit made of the calibration: redone where it rested on leave-one-out scores alone, "
        "stale where scores were given, current where the bank is the same as before"
    )
    warnings: list[str]


class RemovedAnswer(FitAnswer):
    """What is learned without an image."""

    removed: str = Field(description="SHA-256 of the image taken out")


class CalibrateRequest(BaseModel):
    """Scores that `/infer` gave for images known to be good or bad."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "role_id": "disc-front",
                    "roi_id": "pad-1",
                    "mm_per_px": 0.2,
                    "ok_scores": [0.51, 0.55, 0.49],
                    "ng_scores": [0.92],
                    "area_mm2_thr": 1.0,
                    "score_percentile": 99,
                }
            ]
        }
    )

    role_id: RoleId
    roi_id: RoiId
    mm_per_px: MmPerPx
    ok_scores: Annotated[
        list[Score] | None,
        Field(
            fail_fast=True,
            max_length=100_000,
            description="of unseen OK images; none: the fit's leave-one-out scores are used",
        ),
    ] = None
    ng_scores: Annotated[
        list[Score] | None,
        Field(max_length=3, description="with any, the threshold lies between p99 of OK and p5 of these"),
    ] = None
    area_mm2_thr: AreaMm2 | None = None
    score_percentile: Percentile | None = None
    false_alarm_rate: FalseAlarmRate | None = Field(
        None,
        description="without NG scores: the threshold is the OK score of conformal rank ⌈(n+1)(1−α)⌉ instead of p99 "
        "plus margin, usually 0.01 to 0.1. With NG scores it is not used, and a warning says so",
    )
    pixel_threshold: Literal["score", "ok_pixels"] | Score = Field(
        "score",
        description="of regions. score: the same as the score's threshold. ok_pixels: the same rule over the highest "
        "pixel of each blurred leave-one-out map, so that OK images rarely show any region. Or a number",
    )


class CalibrateAnswer(BaseModel):
    """The thresholds, stored from now on: NG is a score above `threshold`, or a region from `pixel_threshold` on."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "role_id": "disc-front",
                    "roi_id": "pad-1",
                    "threshold": 0.64,
                    "pixel_threshold": 0.64,
                    "pixel_threshold_source": "score",
                    "p99_ok": 0.63,
                    "p5_ng": None,
                    "mm_per_px": 0.2,
                    "area_mm2_thr": 1.0,
                    "score_percentile": 99,
                    "blind_area_mm2": 58.98,
                    "method": "conformal",
                    "ok_source": "given",
                    "n_ok": 59,
                    "n_ng": 0,
                    "ok_above": 2,
                    "ng_below": 0,
                    "separable": None,
                    "false_alarm_rate": 0.05,
                    "guaranteed": True,
                    "n_ok_needed": 0,
                    "expected_false_alarm_rate": 0.05,
                    "expected_false_alarm_interval": [0.0041, 0.1171],
                    "verdict_false_alarm_rate": 0.0968,
                    "verdict_false_alarm_interval": [0.0, 0.1721],
                    "version": 1,
                    "warnings": [
                        "score_percentile: 99 hides defects of up to 59 mm² from the score, more than area_mm2_thr, "
                        "1 mm²: those are rejected by their region alone"
                    ],
                }
            ]
        }
    )

    role_id: str
    roi_id: str
    threshold: float
    pixel_threshold: float
    pixel_threshold_source: Literal["score", "ok_pixels", "given"]
    p99_ok: float
    p5_ng: float | None
    mm_per_px: float
    area_mm2_thr: float
    score_percentile: float
    blind_area_mm2: float = Field(
        description="largest defect that the percentile hides from the score: 1 − p of the mask of the median OK image"
    )
    method: Method
    ok_source: Literal["given", "leave-one-out"]
    n_ok: int
    n_ng: int
    ok_above: int = Field(description="OK scores above the threshold")
    ng_below: int = Field(description="NG scores not above it")
    separable: bool | None = Field(description="whether p99 of OK lies below p5 of NG; null without NG")
    false_alarm_rate: float | None = Field(description="as asked for")
    guaranteed: bool | None = Field(
        description="whether the rate asked for is a theorem (split conformal prediction): enough ok_scores of "
        "images that the bank has not learned. false for leave-one-out scores, of which it holds about, and where "
        "there are too few; null where no rate decided the threshold"
    )
    n_ok_needed: int | None = Field(
        description="OK images still missing for the rate asked for; 0 when there are enough"
    )
    expected_false_alarm_rate: float = Field(
        description="share of unseen OK images that the score rejects, expected at most: (x+1)/(n+1) for x of n OK "
        "scores above the threshold"
    )
    expected_false_alarm_interval: tuple[float, float] = Field(
        description="95 % confidence interval of that share, after Clopper and Pearson; for leave-one-out scores, "
        "which err on the high side, one-sided from 0"
    )
    verdict_false_alarm_rate: float | None = Field(
        description="the same for the whole verdict, score or region, counted on the fit's leave-one-out maps at this "
        "mm_per_px and area_mm2_thr; null where the fit has none"
    )
    verdict_false_alarm_interval: tuple[float, float] | None
    version: int = Field(description="of the memory bank that it holds for")
    warnings: list[str]


class RegionAnswer(BaseModel):
    """A connected region above the threshold, in pixels of the image as sent."""

    bbox: tuple[int, int, int, int] = Field(description="x, y, w, h")
    area_px: int
    area_mm2: float
    contour: list[tuple[int, int]]


class ParamsAnswer(BaseModel):
    """What the answer was computed with."""

    extractor: str
    coreset_rate: float
    k: int
    p_score: float
    blur_sigma: float
    area_mm2_thr: float
    mm_per_px: float


class InferAnswer(BaseModel):
    """The inspection of one image."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "role_id": "disc-front",
                    "roi_id": "pad-1",
                    "score": 0.87,
                    "threshold": 0.63,
                    "pixel_threshold": 0.63,
                    "verdict": "ng",
                    "verdict_reason": "both",
                    "calibration_stale": False,
                    "weights_stale": False,
                    "degraded": False,
                    "heatmap_png_base64": "iVBORw0KGgo…",
                    "heatmap_path": None,
                    "heatmap_max": 1.26,
                    "regions": [
                        {
                            "bbox": [120, 88, 34, 21],
                            "area_px": 512,
                            "area_mm2": 20.48,
                            "contour": [[120, 95], [131, 88], [153, 108]],
                        }
                    ],
                    "token_shape": [27, 27],
                    "image_size": [384, 384],
                    "params": {
                        "extractor": "dinov2-vit-s/14",
                        "coreset_rate": 0.02,
                        "k": 1,
                        "p_score": 99,
                        "blur_sigma": 1.0,
                        "area_mm2_thr": 1.0,
                        "mm_per_px": 0.2,
                    },
                    "version": 1,
                    "warnings": [],
                }
            ]
        }
    )

    role_id: str
    roi_id: str
    score: float
    threshold: float | None = Field(description="null before calibration: then there are no regions")
    pixel_threshold: float | None = Field(description="of regions; null before calibration")
    verdict: Verdict
    verdict_reason: VerdictReason | None = Field(description="what rejects it; null unless the verdict is ng")
    calibration_stale: bool = Field(description="the thresholds were made for another memory bank or other weights")
    weights_stale: bool = Field(description="the manual box or the weights' settings changed since the fit")
    degraded: bool = Field(
        description="what is in use is damaged on disk: the last whole version or a copy answers, as warnings say"
    )
    heatmap_png_base64: str | None = Field(description="null for heatmap=path and none")
    heatmap_path: str | None = Field(description="below GATEWAY_HEATMAP_DIR, for heatmap=path")
    heatmap_max: float = Field(description="value of the map that 255 stands for; one for all heatmaps of a version")
    regions: list[RegionAnswer] = Field(description="largest first")
    token_shape: tuple[int, int]
    image_size: tuple[int, int] = Field(description="width, height of the image as seen (EXIF orientation applied)")
    params: ParamsAnswer
    version: int = Field(description="of what answered")
    warnings: list[str]


class BatchItem(BaseModel):
    """One of several images to inspect together."""

    model_config = ConfigDict(extra="forbid")

    role_id: RoleId
    roi_id: RoiId
    mm_per_px: MmPerPx
    shape: dict[str, Any] | str | None = Field(None, description="as in /infer, or the same as a JSON object")
    k: int | None = Field(None, ge=1, le=100)
    p_score: Percentile | None = None
    blur_sigma: Annotated[Number, Field(ge=0, le=20)] | None = None
    area_mm2_thr: AreaMm2 | None = None
    heatmap: Literal["base64", "path", "none"] | None = None


class BatchAnswer(BaseModel):
    """The inspections of several images, in the order of the request."""

    results: list[InferAnswer | ErrorEnvelope] = Field(description="an answer of /infer, or an error envelope, each")


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
    ok_source: Literal["given", "leave-one-out"]
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


class RollbackRequest(BaseModel):
    """Which version to go back to."""

    model_config = ConfigDict(extra="forbid", json_schema_extra={"examples": [{"version": 3}]})

    version: int = Field(ge=1, lt=2**31, description="one of the `versions` that GET /rois/{role_id}/{roi_id} lists")


class RollbackAnswer(BaseModel):
    """What is in use from now on."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "role_id": "disc-front",
                    "roi_id": "pad-1",
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
    version_before: int
    version: int
    n_ok_total: int
    calibration: Literal["none", "current", "stale"] = Field(description="of that version, as it was when it was left")
    threshold: float | None
    warnings: list[str]


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


class RoiList(BaseModel):
    """Every fitted ROI."""

    rois: list[RoiSummary]
    unreadable: list[str] = Field(description="ROIs whose stored artifacts are damaged, and how")


class Deleted(BaseModel):
    """An ROI that is gone, with its OK images, versions and calibration."""

    role_id: str
    roi_id: str
    deleted: Literal[True] = True


class ShiftAnswer(BaseModel):
    """A mean of recent images against that of the OK images."""

    mean: float
    ok_mean: float
    shift: float = Field(description="in standard deviations of the OK images")
    z: float = Field(description="in standard deviations of the difference of the two means")


class DriftHistogram(BaseModel):
    """Counts in the same bins."""

    edges: list[float] = Field(description="one more than there are bins")
    ok_images: list[int] = Field(description="leave-one-out scores of the fit")
    recent: list[int] = Field(description="recent inspections judged OK")


class DriftAnswer(BaseModel):
    """Recent inspections against the OK images of the fit."""

    role_id: str
    roi_id: str
    version: int
    window: int = Field(description="inspections looked at, at most")
    n: int = Field(description="inspections in the window, with this version")
    n_ok: int = Field(description="of those, judged OK; before calibration all of them")
    n_reference: int = Field(description="leave-one-out scores of the fit")
    ks: float | None = Field(description="two-sample Kolmogorov-Smirnov statistic of the scores")
    ks_up: float | None = Field(description="its one-sided part: recent scores lie higher")
    ks_down: float | None
    p_value: float | None = Field(description="of ks")
    above_threshold: float | None = Field(description="share of recent scores above the threshold of then")
    brightness: ShiftAnswer | None
    sharpness: ShiftAnswer | None = Field(description="of its logarithm")
    alarms: list[Signal] = Field(description="what has drifted beyond what chance explains")
    reason: str | None = Field(description="why something is null")
    since: float | None = Field(description="of the oldest inspection in the window, seconds since 1970")
    until: float | None
    histogram: DriftHistogram


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
