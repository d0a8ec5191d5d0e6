"""Answers of the gateway: teach."""

# Written by `python -m tests.clients.client_sources`: change the source of it instead.

from typing import Annotated, Literal

from patchcore_client.answer import OPEN, Answer
from patchcore_client.models.shared import (
    CalibrationMethod,
    ImageLabel,
    OkSource,
    PixelThresholdSource,
    ScoreSummary,
    Verdict,
    WeightsRecipe,
)

CalibrationState = Annotated[Literal["none", "current", "redone", "stale"], OPEN]

RollbackCalibrationState = Annotated[Literal["none", "current", "stale"], OPEN]


class CalibrateAnswer(Answer):
    """The stored thresholds. An image is NG if its peak reaches `peak_threshold` or its score is above `threshold`."""

    role_id: str
    roi_id: str
    recipe_id: str
    threshold: float
    peak_threshold: float
    """An image has a region exactly if its peak is at or above it."""
    pixel_threshold: float
    """Another name of peak_threshold."""
    pixel_threshold_source: PixelThresholdSource
    review_threshold: float | None = None
    """Lower end of the review band; null without one."""
    review_rate: float | None = None
    """Share of good parts whose peak is expected at or above review_threshold: (x+1)/(n+1) if x of the n OK peaks
    are; null without a review band or without leave-one-out maps."""
    p99_ok: float
    p5_ng: float | None = None
    mm_per_px: float
    area_mm2_thr: float
    score_percentile: float
    blind_area_mm2: float
    """Largest defect that the percentile hides from the score: 1 − p of the mask of the median OK image."""
    method: CalibrationMethod
    ok_source: OkSource
    stored_images: bool
    """Whether it rests on the images of the ROI and on no given score: the next fit computes it again with the images
    that are stored then."""
    n_ok_unseen: int
    """Stored OK images among n_ok that the bank has not learned."""
    n_ok: int
    n_ng: int
    ok_above: int
    """Number of OK scores above the threshold."""
    ng_below: int
    """Number of NG scores not above the threshold."""
    missed_ng: list[float]
    """Scores of the NG images that pass by their score; only a peak that reaches peak_threshold rejects such a part.
    """
    separable: bool | None = None
    """Whether p99 of OK lies below p5 of NG; null without NG scores."""
    false_alarm_rate: float | None = None
    """α of the verdict, as requested or set; with pixel_threshold score, ok_pixels or a number, that of the score, as
    requested."""
    guaranteed: bool | None = None
    """Whether split conformal prediction guarantees the requested rate: true with enough ok_scores of images that the
    bank has not learned. false for a calibration by the peak and for leave-one-out scores, for which it holds
    approximately, and for too few scores; null if no rate was requested or used."""
    n_ok_needed: int | None = None
    """Number of OK images still missing for the requested rate; 0 if there are enough."""
    expected_false_alarm_rate: float
    """Upper bound of the expected share of unseen OK images that the score rejects: (x+1)/(n+1) if x of n OK scores
    are above the threshold."""
    expected_false_alarm_interval: tuple[float, float]
    """95 % confidence interval of that share (Clopper and Pearson). It is one-sided from 0 for leave-one-out scores,
    which are too high, unless the peak decides."""
    verdict_false_alarm_rate: float | None = None
    """The same for the verdict, by score or peak, counted on the fit's leave-one-out maps at this mm_per_px and
    area_mm2_thr: (x+1)/(n+1), or (x+2)/(n+1) where NG scores lowered the threshold; null if the fit has no such
    maps."""
    verdict_false_alarm_interval: tuple[float, float] | None = None
    version: int
    """Version of the memory bank that the thresholds are for."""
    warnings: list[str]


class VersionVerdictAnswer(Answer):
    """What a version says of an image."""

    verdict: Verdict
    score: float
    peak: float | None = None
    learned: bool


class ChangedVerdictAnswer(Answer):
    """An image that two versions judge differently."""

    id: str
    label: ImageLabel
    file_name: str
    before: VersionVerdictAnswer
    after: VersionVerdictAnswer


class ComparedVersionAnswer(Answer):
    """One of two compared versions."""

    version: int
    threshold: float | None = None
    """Null where it is not calibrated."""
    peak_threshold: float | None = None
    n_ok_rejected: int
    """OK images that it judges ng."""
    n_ng_passed: int
    """NG images that it judges ok or review."""


class ComparisonAnswer(Answer):
    """Two versions on the same images, each with its own calibration."""

    role_id: str
    roi_id: str
    recipe_id: str
    before: ComparedVersionAnswer
    after: ComparedVersionAnswer
    n_ok: int
    """OK images that both versions judge."""
    n_ng: int
    changed: list[ChangedVerdictAnswer]
    """Images whose verdict differs."""
    warnings: list[str]


class Deleted(Answer):
    """A deleted ROI. Its OK images, versions and calibration are deleted as well."""

    role_id: str
    roi_id: str
    recipe_id: str
    deleted: bool


class SuspectAnswer(Answer):
    """An OK image that looks unlike the others and should be checked."""

    sha256: str
    file_name: str
    score: float
    """Score against the bank without this image."""
    robust_z: float
    """(score − median) / (1.4826 · MAD) of all OK scores; above 5 the image is suspect."""
    excluded: bool
    """Excluded from the bank because of exclude_suspects."""


class FitAnswer(Answer):
    """Result of a fit."""

    role_id: str
    roi_id: str
    recipe_id: str
    n_ok_total: int
    """OK images that the ROI has learned in total."""
    n_ok_added: int
    duplicates: int
    """Images of this request that were already learned, or sent twice."""
    n_embeddings: int
    """Tokens in the memory bank, after the coreset."""
    n_tokens_total: int
    """Tokens of all OK images, before the coreset."""
    coreset_rate: float
    coreset_rate_applied: float
    covering_radius: float
    """Largest distance of an OK token to the bank, 0 to 2."""
    seed: int
    checksum: str
    """SHA-256 of the bank; the same images, order and seed give the same checksum."""
    version: int
    token_shape: tuple[int, int]
    tiles: tuple[int, int]
    """Rows and columns of tiles that an image is cut into; 1, 1: the whole."""
    ok_scores: ScoreSummary | None = None
    """Scores of the OK images, each against the bank without it; null with one image only."""
    n_ok_excluded: int
    """Images sent as OK that are excluded from the bank; n_ok_total does not count them."""
    suspect_images: list[SuspectAnswer]
    """Largest score first; needs at least 10 images. Images that exclude_suspects excluded come before those that
    stand out among the remaining images."""
    spatial_weights: WeightsRecipe
    calibration: CalibrationState
    warnings: list[str]


class FitProgressAnswer(Answer):
    """What the running fit of an ROI is doing."""

    role_id: str
    roi_id: str
    recipe_id: str
    running: bool
    stage: str | None = None
    """Wait (for another fit), engine (the network reads images), store, gather, coreset, loo (the leave-one-out
    maps), stored (the stored images are scored); null without a fit."""
    done: int | None = None
    """Images or centres of this stage that are done; null if they are not counted."""
    total: int | None = None
    elapsed_s: float | None = None
    """Since the fit began."""


class ImagePeakAnswer(Answer):
    """What the version in use says of an image."""

    id: str
    """As in GET /rois/{role_id}/{roi_id}/images."""
    label: ImageLabel
    learned: bool
    """Whether it is measured against the bank without it."""
    score: float
    peak: float | None = None
    """Null where no region of the smallest area fits."""
    level: float
    """The image is rejected by every peak_threshold of POST /calibrate_ng up to this one: its peak, or its score
    where that is above the peak and above score_floor."""


class RateAnswer(Answer):
    """A share of unseen images, with its 95 % confidence interval after Clopper and Pearson."""

    rate: float
    low: float
    high: float


class ImagePeaksAnswer(Answer):
    """Peaks of all images of an ROI, and what any threshold of the peak means."""

    role_id: str
    roi_id: str
    recipe_id: str
    version: int
    mm_per_px: float
    area_mm2_thr: float
    score_percentile: float
    blur_sigma: float
    score_floor: float
    """p99 of the OK scores + margin: the lowest threshold of the score."""
    images: list[ImagePeakAnswer]
    """The learned OK images, then the stored ones that the version has not learned."""
    false_alarms: list[RateAnswer]
    """Share of good parts that are rejected, for 0, 1, … of the OK images above the threshold."""
    misses: list[RateAnswer]
    """Share of defects that pass, for 0, 1, … of the NG images below it; empty without NG images."""
    warnings: list[str]


class RemovedAnswer(Answer):
    """Result of a fit without the removed image."""

    role_id: str
    roi_id: str
    recipe_id: str
    n_ok_total: int
    """OK images that the ROI has learned in total."""
    n_ok_added: int
    duplicates: int
    """Images of this request that were already learned, or sent twice."""
    n_embeddings: int
    """Tokens in the memory bank, after the coreset."""
    n_tokens_total: int
    """Tokens of all OK images, before the coreset."""
    coreset_rate: float
    coreset_rate_applied: float
    covering_radius: float
    """Largest distance of an OK token to the bank, 0 to 2."""
    seed: int
    checksum: str
    """SHA-256 of the bank; the same images, order and seed give the same checksum."""
    version: int
    token_shape: tuple[int, int]
    tiles: tuple[int, int]
    """Rows and columns of tiles that an image is cut into; 1, 1: the whole."""
    ok_scores: ScoreSummary | None = None
    """Scores of the OK images, each against the bank without it; null with one image only."""
    n_ok_excluded: int
    """Images sent as OK that are excluded from the bank; n_ok_total does not count them."""
    suspect_images: list[SuspectAnswer]
    """Largest score first; needs at least 10 images. Images that exclude_suspects excluded come before those that
    stand out among the remaining images."""
    spatial_weights: WeightsRecipe
    calibration: CalibrationState
    warnings: list[str]
    removed: str
    """SHA-256 of the removed image."""


class RollbackAnswer(Answer):
    """The version in use after a rollback."""

    role_id: str
    roi_id: str
    recipe_id: str
    version_before: int
    version: int
    n_ok_total: int
    calibration: RollbackCalibrationState
    threshold: float | None = None
    warnings: list[str]
