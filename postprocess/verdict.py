"""The verdict on one image."""

from typing import Literal

Verdict = Literal["ok", "review", "ng", "uncalibrated"]
Uncalibrated = Literal["p_score", "k", "shape"]
"""The parameter of a request that its ROI was not calibrated with."""
VerdictReason = Literal["score", "region", "both", "no_picture", "p_score", "k", "shape"]


def judge(
    score: float,
    threshold: float | None,
    n_regions: int,
    *,
    shows_nothing: bool = False,
    uncalibrated: Uncalibrated | None = None,
    in_review_band: bool = False,
) -> tuple[Verdict, VerdictReason | None]:
    """Return the verdict on an image, and its reason: why it is NG, or why it is not judged.

    Args:
        score: score of the image.
        threshold: the image is NG if its score is above the threshold; None where no threshold applies.
        n_regions: number of regions that are large enough to count; the image is NG if there is one.
        shows_nothing: whether all pixels are equal or transparent; such an image is NG whatever its score is.
        uncalibrated: why no threshold applies; None before calibration.
        in_review_band: whether a person should look at the image if it is not NG.

    Example:
        >>> judge(0.5, 0.5, 0), judge(0.5, 0.5, 1)
        (('ok', None), ('ng', 'region'))
    """
    if shows_nothing:
        return "ng", "no_picture"
    if threshold is None:
        return "uncalibrated", uncalibrated
    if score > threshold:
        return "ng", "both" if n_regions else "score"
    if n_regions:
        return "ng", "region"
    return ("review" if in_review_band else "ok"), None
