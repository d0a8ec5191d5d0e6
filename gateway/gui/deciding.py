"""The one pair of numbers that decides, for a client that compares a score with a threshold itself."""

import math
from dataclasses import dataclass
from typing import Literal

import numpy as np

from gateway.gui.errors import CalibrationMissingError
from gateway.inspection.answer import Inspection

_LARGEST_DISTANCE = 2.0


@dataclass(frozen=True, slots=True)
class Deciding:
    """A decision, and the pair that it rests on: `score > threshold` exactly when it is `ng`."""

    score: float
    threshold: float
    decision: Literal["ok", "ng"]


def deciding(result: Inspection) -> Deciding | None:
    """Return the decision of an inspection, or None if the ROI has no threshold that applies.

    The pair is that of the criterion that decided: the score where the score alone is above its threshold, or where no
    region of the smallest area fits; else the peak. A picture that shows nothing has a score above every threshold.
    """
    if result.threshold is None or result.peak_threshold is None:
        return None
    threshold = peak_limit(result.peak_threshold)
    if result.verdict_reason == "no_picture":
        return Deciding(max(_LARGEST_DISTANCE, math.nextafter(threshold, math.inf)), threshold, "ng")
    decision: Literal["ok", "ng"] = "ng" if result.verdict == "ng" else "ok"
    if result.peak is None or result.verdict_reason == "score":
        return Deciding(result.score, result.threshold, decision)
    return Deciding(float(np.float32(result.peak)), threshold, decision)


def require_decision(result: Inspection) -> Deciding:
    """Return the decision of an inspection.

    Raises:
        CalibrationMissingError: the ROI has no threshold that applies.
    """
    found = deciding(result)
    if found is None:
        why = "it is not calibrated"
        if result.verdict_reason is not None:
            why = f"its threshold does not apply to the {result.verdict_reason} of this request"
        raise CalibrationMissingError(result.key, why)
    return found


def peak_limit(peak_threshold: float) -> float:
    """Return the largest peak that is OK. Peaks and their threshold are compared in float32.

    >>> peak_limit(0.75)
    0.7499999403953552
    """
    return float(np.nextafter(np.float32(peak_threshold), np.float32(-np.inf)))
