"""Bodies of what changes an ROI: fits, calibrations, rollbacks, deletions."""

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

from gateway.api.fields import AreaMm2, FalseAlarmRate, MmPerPx, Percentile, RoiId, RoleId, Score
from gateway.learning.request import CalibrationState
from gateway.store.manifest import Method, OkSource, ScoreSummary, WeightsRecipe


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
    ok_source: OkSource
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


class Deleted(BaseModel):
    """An ROI that is gone, with its OK images, versions and calibration."""

    role_id: str
    roi_id: str
    deleted: Literal[True] = True
