"""The request of a calibration, and what it computes with."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from gateway.settings import Settings
from postprocess.roi_mask import Shape

PixelThreshold = Literal["peak", "score", "ok_pixels"] | float
"""Source of the threshold of regions: the peaks of the OK maps, the threshold of the score, the pixels of the OK maps,
or a number."""


@dataclass(frozen=True, slots=True)
class CalibrationRequest:
    """Scores of OK and NG images, and parameters. For parameters that are None, the settings decide."""

    mm_per_px: float
    ok_scores: Sequence[float] = ()
    """Scores of unseen OK images; if empty, the leave-one-out scores of the fit count."""
    ng_scores: Sequence[float] = ()
    ng_peaks: Sequence[float] = ()
    """Peaks of the same NG images, where they are known."""
    area_mm2_thr: float | None = None
    """From now on, `/infer` drops regions smaller than this."""
    score_percentile: float | None = None
    """Percentile that the scores were made with."""
    false_alarm_rate: float | None = None
    pixel_threshold: PixelThreshold = "peak"
    peak_threshold: float | None = None
    """Threshold of the peak instead of one that a rate chooses."""
    review_threshold: float | None = None
    """Lower end of the review band."""
    review_rate: float | None = None
    """Share of the OK images above the lower end of the review band, where a band is computed again."""
    margin: float | None = None
    blur_sigma: float | None = None
    """Sigma of the blur before regions are cut, in pixels."""
    shape: Shape | None = None
    """The shape that the scores count for; None for that of the OK images."""
    shape_json: str | None = None


@dataclass(frozen=True, slots=True)
class Parameters:
    """What scores and regions are computed with: the request's parameters, else the settings'."""

    percentile: float
    area_mm2_thr: float
    margin: float
    blur_sigma: float

    @classmethod
    def of(cls, request: CalibrationRequest, settings: Settings) -> "Parameters":
        """Return the parameters of a request."""
        return cls(
            settings.p_score if request.score_percentile is None else request.score_percentile,
            settings.area_mm2_thr if request.area_mm2_thr is None else request.area_mm2_thr,
            settings.threshold_margin if request.margin is None else request.margin,
            settings.blur_sigma if request.blur_sigma is None else request.blur_sigma,
        )
