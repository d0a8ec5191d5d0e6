"""Bodies of drift."""

from pydantic import BaseModel, Field

from gateway.monitoring.drift import Signal


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
