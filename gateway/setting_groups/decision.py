"""Settings of what is learned and decided."""

from pathlib import Path
from typing import Annotated, Literal

from pydantic import AliasChoices, BaseModel, Field, ValidationInfo, field_validator

Percentile = Annotated[float, Field(ge=95, le=100)]


class DecisionSettings(BaseModel):
    """Memory bank, score, regions, calibration and spatial weights."""

    coreset_rate: float = Field(0.02, gt=0, le=1, description="share of the OK tokens that a memory bank keeps")
    seed: int = Field(0, ge=0, lt=2**32, description="seed of the coreset's first centre")
    k: int = Field(
        1, ge=1, le=100, description="number of neighbours whose mean distance is a patch distance; stored by the fit"
    )
    p_score: Percentile = Field(99.0, description="percentile of the anomaly map that is the score")
    blur_sigma: float = Field(
        1.0, ge=0, le=20, description="blur of the map that regions are cut from: standard deviation in pixels"
    )
    area_mm2_thr: float = Field(1.0, ge=0, description="smallest area of a region, in mm²")
    false_alarm_rate: float = Field(
        0.02, gt=0, lt=1, description="share of OK images that a calibration may reject, unless the request names one"
    )
    threshold_margin: float = Field(
        0.0, ge=0, le=2, description="added to p99 of the OK scores if no NG score is given"
    )
    roi_config: Path = Field(
        Path("Training/pcl_roi_config.json"),
        description='file of manual boxes, `{"roi_id": [y1, y2, x1, x2]}`; optional',
    )
    roi_config_size: int = Field(
        128, ge=1, le=65536, description="side of the square image that the boxes refer to, in pixels"
    )
    mask_min_weight: float = Field(
        0.1,
        ge=0,
        le=100,
        validation_alias=AliasChoices("GATEWAY_MASK_MIN_WEIGHT", "MASK_MIN_WEIGHT"),
        description="spatial weight outside a manual box, or where OK maps vary most",
    )
    mask_max_weight: float = Field(
        2.0,
        gt=0,
        le=100,
        validation_alias=AliasChoices("GATEWAY_MASK_MAX_WEIGHT", "MASK_MAX_WEIGHT"),
        description="spatial weight inside a manual box, or where OK maps vary least",
    )
    spatial_weights: Literal["none", "variance"] = Field(
        "none", description="for an ROI without a manual box; variance: weights by the spread of its OK maps"
    )
    heatmap: Literal["base64", "path", "none"] = Field("base64", description="how /infer returns the heatmap")

    @field_validator("mask_max_weight")
    @classmethod
    def _above_the_smallest(cls, largest: float, info: ValidationInfo) -> float:
        smallest = info.data.get("mask_min_weight", 0.0)
        if largest < smallest:
            raise ValueError(f"below GATEWAY_MASK_MIN_WEIGHT, {smallest:g}")
        return largest
