"""Bodies of drift."""

from pydantic import BaseModel, Field

from gateway.monitoring.drift.measure import Signal


class ShiftAnswer(BaseModel):
    """Mean of recent images, compared with the mean of the OK images."""

    mean: float
    ok_mean: float
    shift: float = Field(description="difference of the means, in standard deviations of the OK images")
    z: float = Field(description="difference of the means, in standard errors of that difference")


class DriftHistogram(BaseModel):
    """Score counts of OK images and of recent inspections in the same bins."""

    edges: list[float] = Field(description="bin edges, one more than there are bins")
    ok_images: list[int] = Field(description="leave-one-out scores of the fit")
    recent: list[int] = Field(description="scores of recent inspections judged OK")


class DriftAnswer(BaseModel):
    """Comparison of recent inspections with the OK images of the fit."""

    role_id: str
    roi_id: str
    recipe_id: str
    version: int
    window: int = Field(description="largest number of inspections in the window")
    n: int = Field(description="inspections in the window with this version")
    n_ok: int = Field(description="inspections judged OK among them; before calibration all of them")
    n_reference: int = Field(description="number of leave-one-out scores of the fit")
    ks: float | None = Field(description="two-sample Kolmogorov-Smirnov statistic of the scores")
    ks_up: float | None = Field(description="one-sided statistic: recent scores are higher")
    ks_down: float | None
    p_value: float | None = Field(description="p-value of ks")
    above_threshold: float | None = Field(description="share of recent scores above the threshold that applied to them")
    rejected: float | None = Field(description="share of recent inspections judged NG, by score or by region")
    brightness: ShiftAnswer | None
    sharpness: ShiftAnswer | None = Field(description="of the logarithm of the sharpness")
    alarms: list[Signal] = Field(description="signals whose drift chance does not explain")
    reason: str | None = Field(description="why a value is null")
    since: float | None = Field(description="time of the oldest inspection in the window, in seconds since 1970")
    until: float | None
    histogram: DriftHistogram
