"""Bodies of calibrations."""

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

from gateway.api.fields import (
    AreaMm2,
    FalseAlarmRate,
    JsonShape,
    MmPerPx,
    Percentile,
    PixelThreshold,
    RecipeId,
    RoiId,
    RoleId,
    Score,
)
from gateway.api.schemas.requests import RequestBody
from gateway.store.manifest import Method, OkSource, PixelThresholdSource


class CalibrateRequest(RequestBody):
    """Scores that `/infer` returned for images known to be OK or NG."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "role_id": "disc-front",
                    "roi_id": "pad-1",
                    "recipe_id": "default",
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
    recipe_id: RecipeId | None = None
    mm_per_px: MmPerPx
    ok_scores: Annotated[
        list[Score] | None,
        Field(
            fail_fast=True,
            max_length=100_000,
            description="scores of unseen OK images; without any, the fit's leave-one-out scores are used. Without any "
            "score at all, the stored images count too",
        ),
    ] = None
    ng_scores: Annotated[
        list[Score] | None,
        Field(
            max_length=3,
            description="scores of NG images; with any, the threshold lies between p99 of OK and p5 of NG, and "
            "never above the one without them",
        ),
    ] = None
    area_mm2_thr: AreaMm2 | None = None
    score_percentile: Percentile | None = None
    false_alarm_rate: FalseAlarmRate | None = Field(
        None,
        description="α, the share of OK images that the verdict may reject, usually 0.01 to 0.1; "
        "GATEWAY_FALSE_ALARM_RATE without one. With pixel_threshold score, ok_pixels or a number, it is α of the score "
        "alone, and not used with NG scores",
    )
    pixel_threshold: PixelThreshold | None = Field(
        "peak",
        description="threshold of regions. peak: the OK peak of conformal rank ⌈(n+1)(1−α)⌉, so that the verdict has "
        "the rate α. score: equal to the threshold of the score. ok_pixels: the rule of the score "
        "applied to the highest pixel of each blurred leave-one-out map, so that OK images rarely have a region. "
        "Or a number",
    )
    peak_threshold: Score | None = Field(
        None,
        description="threshold of the peak, instead of one that the rate chooses. The threshold of the score is equal "
        "to it, or p99 of OK + margin where that is higher. Not together with a pixel_threshold or a rate",
    )
    review_threshold: Score | None = Field(
        None,
        description="lower end of a review band below peak_threshold: /infer returns the verdict review for an image "
        "that is not ng and whose peak is at or above it. Without one, there is no review band",
    )
    shape: JsonShape | None = Field(
        None,
        description="the shape of /infer that the thresholds are for: the scores were measured within it. Without one, "
        "the thresholds are for the pixels that the OK images were fitted with",
    )


class CalibrateAnswer(BaseModel):
    """The stored thresholds. An image is NG if its peak reaches `peak_threshold` or its score is above `threshold`."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "role_id": "disc-front",
                    "roi_id": "pad-1",
                    "recipe_id": "default",
                    "threshold": 0.64,
                    "peak_threshold": 0.66,
                    "pixel_threshold": 0.66,
                    "pixel_threshold_source": "peak",
                    "review_threshold": None,
                    "review_rate": None,
                    "p99_ok": 0.63,
                    "p5_ng": None,
                    "mm_per_px": 0.2,
                    "area_mm2_thr": 1.0,
                    "score_percentile": 99,
                    "blind_area_mm2": 58.98,
                    "method": "conformal",
                    "ok_source": "given",
                    "stored_images": False,
                    "n_ok_unseen": 0,
                    "n_ok": 59,
                    "n_ng": 0,
                    "ok_above": 2,
                    "ng_below": 0,
                    "missed_ng": [],
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
    recipe_id: str
    threshold: float
    peak_threshold: float = Field(description="an image has a region exactly if its peak is at or above it")
    pixel_threshold: float = Field(description="another name of peak_threshold")
    pixel_threshold_source: PixelThresholdSource
    review_threshold: float | None = Field(description="lower end of the review band; null without one")
    review_rate: float | None = Field(
        description="share of good parts whose peak is expected at or above review_threshold: (x+1)/(n+1) if x of the "
        "n OK peaks are; null without a review band or without leave-one-out maps"
    )
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
    stored_images: bool = Field(
        description="whether it rests on the images of the ROI and on no given score: the next fit computes it again "
        "with the images that are stored then"
    )
    n_ok_unseen: int = Field(description="stored OK images among n_ok that the bank has not learned")
    n_ok: int
    n_ng: int
    ok_above: int = Field(description="number of OK scores above the threshold")
    ng_below: int = Field(description="number of NG scores not above the threshold")
    missed_ng: list[float] = Field(
        description="scores of the NG images that pass by their score; only a peak that reaches peak_threshold rejects "
        "such a part"
    )
    separable: bool | None = Field(description="whether p99 of OK lies below p5 of NG; null without NG scores")
    false_alarm_rate: float | None = Field(
        description="α of the verdict, as requested or set; with pixel_threshold score, ok_pixels or a number, that of "
        "the score, as requested"
    )
    guaranteed: bool | None = Field(
        description="whether split conformal prediction guarantees the requested rate: true with enough ok_scores of "
        "images that the bank has not learned. false for a calibration by the peak and for leave-one-out scores, for "
        "which it holds approximately, and for too few scores; null if no rate was requested or used"
    )
    n_ok_needed: int | None = Field(
        description="number of OK images still missing for the requested rate; 0 if there are enough"
    )
    expected_false_alarm_rate: float = Field(
        description="upper bound of the expected share of unseen OK images that the score rejects: (x+1)/(n+1) if x "
        "of n OK scores are above the threshold"
    )
    expected_false_alarm_interval: tuple[float, float] = Field(
        description="95 % confidence interval of that share (Clopper and Pearson). It is one-sided from 0 for "
        "leave-one-out scores, which are too high, unless the peak decides"
    )
    verdict_false_alarm_rate: float | None = Field(
        description="the same for the verdict, by score or peak, counted on the fit's leave-one-out maps at this "
        "mm_per_px and area_mm2_thr: (x+1)/(n+1), or (x+2)/(n+1) where NG scores lowered the threshold; null if the "
        "fit has no such maps"
    )
    verdict_false_alarm_interval: tuple[float, float] | None
    version: int = Field(description="version of the memory bank that the thresholds are for")
    warnings: list[str]
