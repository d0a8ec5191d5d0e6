"""The verdict on one image."""

from typing import Literal

Verdict = Literal["ok", "ng", "uncalibrated"]
VerdictReason = Literal["score", "region", "both"]


def judge(score: float, threshold: float | None, n_regions: int) -> tuple[Verdict, VerdictReason | None]:
    """Reject an image by its score, by a region, or by both.

    Args:
        score: score of the image.
        threshold: an image is NG when its score is above it; None before calibration.
        n_regions: number of regions that are large enough to count.

    Example:
        >>> judge(0.5, 0.5, 0), judge(0.5, 0.5, 1)
        (('ok', None), ('ng', 'region'))
    """
    if threshold is None:
        return "uncalibrated", None
    if score > threshold:
        return "ng", "both" if n_regions else "score"
    return ("ng", "region") if n_regions else ("ok", None)
