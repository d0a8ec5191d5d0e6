"""Bodies about the peaks of the images of an ROI, and the comparison of versions."""

from typing import Literal

from pydantic import BaseModel, Field

from postprocess.verdict import Verdict


class ImagePeakAnswer(BaseModel):
    """What the version in use says of an image."""

    id: str = Field(description="as in GET /rois/{role_id}/{roi_id}/images")
    label: Literal["ok", "ng"]
    learned: bool = Field(description="whether it is measured against the bank without it")
    score: float
    peak: float | None = Field(description="null where no region of the smallest area fits")
    level: float = Field(
        description="the image is rejected by every peak_threshold of POST /calibrate_ng up to this one: its peak, or "
        "its score where that is above the peak and above score_floor"
    )


class RateAnswer(BaseModel):
    """A share of unseen images, with its 95 % confidence interval after Clopper and Pearson."""

    rate: float
    low: float
    high: float


class ImagePeaksAnswer(BaseModel):
    """Peaks of all images of an ROI, and what any threshold of the peak means."""

    role_id: str
    roi_id: str
    recipe_id: str
    version: int
    mm_per_px: float
    area_mm2_thr: float
    score_percentile: float
    blur_sigma: float
    score_floor: float = Field(description="p99 of the OK scores + margin: the lowest threshold of the score")
    images: list[ImagePeakAnswer] = Field(
        description="the learned OK images, then the stored ones that the version has not learned"
    )
    false_alarms: list[RateAnswer] = Field(
        description="share of good parts that are rejected, for 0, 1, … of the OK images above the threshold"
    )
    misses: list[RateAnswer] = Field(
        description="share of defects that pass, for 0, 1, … of the NG images below it; empty without NG images"
    )
    warnings: list[str]


class VersionVerdictAnswer(BaseModel):
    """What a version says of an image."""

    verdict: Verdict
    score: float
    peak: float | None
    learned: bool


class ChangedVerdictAnswer(BaseModel):
    """An image that two versions judge differently."""

    id: str
    label: Literal["ok", "ng"]
    file_name: str
    before: VersionVerdictAnswer
    after: VersionVerdictAnswer


class ComparedVersionAnswer(BaseModel):
    """One of two compared versions."""

    version: int
    threshold: float | None = Field(description="null where it is not calibrated")
    peak_threshold: float | None
    n_ok_rejected: int = Field(description="OK images that it judges ng")
    n_ng_passed: int = Field(description="NG images that it judges ok or review")


class ComparisonAnswer(BaseModel):
    """Two versions on the same images, each with its own calibration."""

    role_id: str
    roi_id: str
    recipe_id: str
    before: ComparedVersionAnswer
    after: ComparedVersionAnswer
    n_ok: int = Field(description="OK images that both versions judge")
    n_ng: int
    changed: list[ChangedVerdictAnswer] = Field(description="images whose verdict differs")
    warnings: list[str]
