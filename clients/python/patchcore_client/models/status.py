"""Answers of the gateway: status."""

# Written by `python -m tests.clients.client_sources`: change the source of it instead.

from typing import Annotated, Literal

from patchcore_client.answer import OPEN, Answer
from patchcore_client.models.shared import (
    CalibrationMethod,
    ErrorBody,
    OkSource,
    PixelThresholdSource,
    ScoreSummary,
    WeightsRecipe,
)

AuditAction = Annotated[
    Literal[
        "fit",
        "calibrate",
        "rollback",
        "delete",
        "delete_ok_image",
        "import",
        "publish",
        "store_images",
        "label_image",
        "delete_images",
    ],
    OPEN,
]

AuditOutcome = Annotated[Literal["done", "failed", "unknown"], OPEN]

DetectorKind = Annotated[Literal["memory-bank", "student-teacher"], OPEN]

Device = Annotated[Literal["cuda", "cpu"], OPEN]

DriftSignal = Annotated[Literal["score", "rejects", "brightness", "sharpness"], OPEN]

EngineKind = Annotated[Literal["embedded", "triton"], OPEN]

ModelWeights = Annotated[Literal["hub", "file", "seed", "stand-in"], OPEN]


class AuditEntry(Answer):
    """A change of an ROI."""

    id: str
    time: str
    """When the change started, UTC."""
    role_id: str
    roi_id: str
    recipe_id: str
    action: AuditAction
    actor: str
    """Name of the API key."""
    client: str
    """Address of the client."""
    request_id: str
    """X-Request-ID."""
    version_before: int | None = None
    version_after: int | None = None
    threshold_before: float | None = None
    threshold_after: float | None = None
    n_ok_before: int
    n_ok_after: int
    outcome: AuditOutcome
    n_images: int | None = None
    """Stored images that the change concerns."""
    label: str | None = None
    """Their label after it; null where they were deleted."""
    image: str | None = None
    """Id of the image, where it is one."""
    error: str | None = None
    """Code of the error if it failed."""


class AuditAnswer(Answer):
    """The changes of an ROI, newest first, also of a deleted ROI."""

    role_id: str
    roi_id: str
    recipe_id: str
    entries: list[AuditEntry]


class BankAnswer(Answer):
    """How the memory bank or the student-teacher model was made. Values that only a bank has are 0 for the latter."""

    extractor: str
    token_hw: tuple[int, int]
    dim: int
    k: int
    p_score: float
    n_tokens_total: int


class CalibrationSummary(Answer):
    """The calibration in use."""

    threshold: float
    peak_threshold: float
    """An image has a region exactly if its peak is at or above it."""
    pixel_threshold: float
    """Another name of peak_threshold."""
    pixel_threshold_source: PixelThresholdSource
    review_threshold: float | None = None
    """Lower end of the review band; null without one."""
    review_rate: float | None = None
    """Share of good parts expected at or above it."""
    p99_ok: float
    p5_ng: float | None = None
    area_mm2_thr: float
    score_percentile: float
    shape: str | None = None
    """Shape that it was made for, as JSON; null for that of the OK images."""
    method: CalibrationMethod
    ok_source: OkSource
    n_ok: int
    n_ng: int
    missed_ng: list[float]
    """Scores of the NG images that passed by their score."""
    false_alarm_rate: float | None = None
    guaranteed: bool | None = None
    expected_false_alarm_rate: float | None = None
    expected_false_alarm_interval: tuple[float, float] | None = None
    verdict_false_alarm_rate: float | None = None
    verdict_false_alarm_interval: tuple[float, float] | None = None
    version: int
    created_at: str
    stale: bool
    """Whether it was made for an earlier memory bank than the one in use."""


class DriftHistogram(Answer):
    """Score counts of OK images and of recent inspections in the same bins."""

    edges: list[float]
    """Bin edges, one more than there are bins."""
    ok_images: list[int]
    """Leave-one-out scores of the fit."""
    recent: list[int]
    """Scores of recent inspections judged OK."""


class ShiftAnswer(Answer):
    """Mean of recent images, compared with the mean of the OK images."""

    mean: float
    ok_mean: float
    shift: float
    """Difference of the means, in standard deviations of the OK images."""
    z: float
    """Difference of the means, in standard errors of that difference."""


class DriftAnswer(Answer):
    """Comparison of recent inspections with the OK images of the fit."""

    role_id: str
    roi_id: str
    recipe_id: str
    version: int
    window: int
    """Largest number of inspections in the window."""
    n: int
    """Inspections in the window with this version."""
    n_ok: int
    """Inspections judged OK among them; before calibration all of them."""
    n_reference: int
    """Number of leave-one-out scores of the fit."""
    ks: float | None = None
    """Two-sample Kolmogorov-Smirnov statistic of the scores."""
    ks_up: float | None = None
    """One-sided statistic: recent scores are higher."""
    ks_down: float | None = None
    p_value: float | None = None
    """p-value of ks."""
    above_threshold: float | None = None
    """Share of recent scores above the threshold that applied to them."""
    rejected: float | None = None
    """Share of recent inspections judged NG, by score or by region."""
    brightness: ShiftAnswer | None = None
    sharpness: ShiftAnswer | None = None
    """Of the logarithm of the sharpness."""
    alarms: list[DriftSignal]
    """Signals whose drift chance does not explain."""
    reason: str | None = None
    """Why a value is null."""
    since: float | None = None
    """Time of the oldest inspection in the window, in seconds since 1970."""
    until: float | None = None
    histogram: DriftHistogram


class ExcludedImageAnswer(Answer):
    """An image that was sent as OK and is excluded from the bank."""

    sha256: str
    file_name: str
    width: int
    height: int
    excluded_in: int
    reason: str
    score: float
    """Score against the bank of all other images, when it was excluded."""
    robust_z: float


class HealthAnswer(Answer):
    """The process is alive."""

    status: str
    device: Device
    model: str
    version: str
    engine: EngineKind
    runtime: str
    """Runtime that computes tokens, such as openvino-bf16."""
    runtime_reason: str | None = None
    """Why the network computes in this precision; null on a GPU."""
    search: str
    """Library that finds nearest neighbours."""
    model_fingerprint: str | None = None
    """Null while no model is loaded or reachable."""
    model_weights: ModelWeights | None = None
    """Origin of the weights; seed: random weights, scores mean nothing; stand-in: fine-tuned weights, not stock
    DINOv2."""


class OkImageAnswer(Answer):
    """A learned OK image of an ROI."""

    sha256: str
    file_name: str
    width: int
    height: int
    added_in: int
    score: float | None = None
    """Score against the bank without this image."""
    robust_z: float | None = None
    suspect: bool


class PeaksAnswer(Answer):
    """Histogram of the peaks of the OK images that the calibration was made from."""

    edges: list[float]
    ok_images: list[int]


class ReadyAnswer(Answer):
    """Whether inspections are possible now."""

    ready: bool
    engine: str
    """'ready', or why the token model is not ready."""
    storage: str
    """'ready', or why nothing can be learned; inspections go on."""
    process: str
    """'ready', or why the process is not ready: it is shutting down."""
    networks: list[str]
    """Student-teacher networks in use, each with 'ready' or the reason; other ROIs do not need them."""
    degraded: list[str]
    """ROIs with files that this process found damaged; their inspections use the last undamaged version, or are
    refused."""
    error: ErrorBody | None = None
    """Why inspections are impossible, in answers with status 503."""


class VersionAnswer(Answer):
    """A kept version. POST …/rollback makes it the current one."""

    version: int
    created_at: str
    detector: DetectorKind
    n_ok: int
    """Number of learned OK images."""
    n_embeddings: int
    current: bool
    """Whether it is in use."""


class RoiDetail(Answer):
    """A fitted ROI with its OK images and versions."""

    role_id: str
    roi_id: str
    recipe_id: str
    version: int
    created_at: str
    detector: DetectorKind
    n_ok_total: int
    """Learned OK images; for a student-teacher model, its validation images."""
    n_embeddings: int
    """0 without a memory bank."""
    coreset_rate_applied: float
    tiles: tuple[int, int]
    """Rows and columns of tiles that an image is cut into; 1, 1: the whole."""
    mm_per_px: float
    checksum: str
    model_fingerprint: str
    ok_scores: ScoreSummary | None = None
    n_ok_excluded: int
    n_suspects: int
    """Number of learned OK images that look unlike the others."""
    spatial_weights: WeightsRecipe
    weights_stale: bool
    """Whether the manual box or the settings of the weights changed since the fit."""
    blind_area_mm2: float
    """Largest defect that the percentile hides from the score."""
    calibration: CalibrationSummary | None = None
    degraded: bool
    """Whether files of the ROI are damaged; warnings name them and the version that answers."""
    drift_alarms: list[DriftSignal]
    """Signals whose drift chance does not explain; see …/drift."""
    warnings: list[str]
    covering_radius: float
    seed: int
    heatmap_max: float
    shape: str | None = None
    """Shape that the learned images were sent with, as JSON; null without one, or if it is not the same for all."""
    versions: list[VersionAnswer]
    """Kept versions, newest first; without those whose manifest is damaged."""
    images: list[OkImageAnswer]
    excluded_images: list[ExcludedImageAnswer]


class ReportAnswer(Answer):
    """Answers of the other endpoints about an ROI, taken at the same time."""

    role_id: str
    roi_id: str
    recipe_id: str
    made_at: str
    gateway: str
    """Version of the gateway."""
    roi: RoiDetail
    bank: BankAnswer
    peaks: PeaksAnswer | None = None
    """Null before a calibration, and for one that the peak did not decide."""
    drift: DriftAnswer
    drift_needs: int
    """Smallest number of inspections that drift needs."""
    audit: list[AuditEntry]
    """The newest entries of /audit."""


class RoiSummary(Answer):
    """A fitted ROI."""

    role_id: str
    roi_id: str
    recipe_id: str
    version: int
    created_at: str
    detector: DetectorKind
    n_ok_total: int
    """Learned OK images; for a student-teacher model, its validation images."""
    n_embeddings: int
    """0 without a memory bank."""
    coreset_rate_applied: float
    tiles: tuple[int, int]
    """Rows and columns of tiles that an image is cut into; 1, 1: the whole."""
    mm_per_px: float
    checksum: str
    model_fingerprint: str
    ok_scores: ScoreSummary | None = None
    n_ok_excluded: int
    n_suspects: int
    """Number of learned OK images that look unlike the others."""
    spatial_weights: WeightsRecipe
    weights_stale: bool
    """Whether the manual box or the settings of the weights changed since the fit."""
    blind_area_mm2: float
    """Largest defect that the percentile hides from the score."""
    calibration: CalibrationSummary | None = None
    degraded: bool
    """Whether files of the ROI are damaged; warnings name them and the version that answers."""
    drift_alarms: list[DriftSignal]
    """Signals whose drift chance does not explain; see …/drift."""
    warnings: list[str]


class UnfittedRoi(Answer):
    """An ROI that has stored images and no version yet. It does not inspect."""

    role_id: str
    roi_id: str
    recipe_id: str
    state: str
    n_ok: int
    """Stored OK images: POST /fit_ok without files learns them."""
    n_ng: int
    """Stored NG images."""


class RoiList(Answer):
    """Every fitted ROI, and those that have stored images alone."""

    rois: list[RoiSummary]
    unfitted: list[UnfittedRoi]
    """ROIs with stored images that were never fitted."""
    unreadable: list[str]
    """ROIs with damaged files, and what is damaged."""
