"""Deciding statistics of an anomaly map, and the rules for a threshold: the gateway's own functions, by name."""

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from gateway.calibration.ok_scores import ok_scores, ok_statistics
from gateway.calibration.peak_rule import just_above, level_of
from gateway.calibration.threshold import choose_threshold
from gateway.store.ok_maps import OkMaps
from postprocess.peak import reaches
from postprocess.regions import smallest_area_px

RuleName = Literal["conformal", "spec"]
RULES: tuple[RuleName, ...] = ("conformal", "spec")
"""`conformal`: the OK value of conformal rank for a rate. `spec`: p99 of the OK values plus the margin."""
_FORMS = re.compile(
    r"p(?P<percentile>\d+(\.\d+)?)|top:(?P<top>\d+(\.\d+)?)|max|opening:(?P<area>\d+(\.\d+)?)(?P<unit>px|mm2)"
)


@dataclass(frozen=True, slots=True)
class Statistic:
    """One number of an anomaly map."""

    name: str
    kind: Literal["percentile", "top_mean", "opening_px", "opening_mm2"]
    parameter: float
    """Percentile, or area."""

    def of(self, maps: OkMaps, blur_sigma: float, mm_per_px: float) -> NDArray[np.float64]:
        """Return the statistic of each map, float64 [I].

        Args:
            maps: of any images, OK or not.
            blur_sigma: sigma of the blur in pixels, for an area opening.
            mm_per_px: side of a pixel in mm, for an area in mm².
        """
        if self.kind == "percentile":
            return np.array(ok_scores(replace(maps, rule="percentile"), self.parameter))
        if self.kind == "top_mean":
            return np.array(ok_scores(replace(maps, rule="top_mean"), self.parameter))
        area = self.parameter if self.kind == "opening_px" else smallest_area_px(self.parameter, mm_per_px)
        return np.array(ok_statistics(maps, 100, blur_sigma, max(1, round(area)))[1])


def statistic_from(text: str) -> Statistic:
    """Return a statistic by its name.

    Raises:
        ValueError: the name is unknown.

    >>> statistic_from("top:0.2")
    Statistic(name='top:0.2', kind='top_mean', parameter=99.8)
    """
    found = _FORMS.fullmatch(text)
    if found is None:
        raise ValueError(f"{text!r} is not a statistic: p99, top:0.2 (percent), max, opening:25px, opening:1mm2")
    if found["percentile"] is not None and 0 <= float(found["percentile"]) <= 100:
        return Statistic(text, "percentile", float(found["percentile"]))
    if found["top"] is not None and 0 < float(found["top"]) <= 100:
        return Statistic(text, "top_mean", round(100 - float(found["top"]), 9))
    if found["unit"] is not None:
        return Statistic(text, "opening_px" if found["unit"] == "px" else "opening_mm2", float(found["area"]))
    if text == "max":
        return Statistic(text, "opening_px", 1)
    raise ValueError(f"{text!r} is not a statistic: the percentage must be from 0 to 100")


def rejects(
    ok: Sequence[float] | NDArray[np.float64],
    values: NDArray[np.float64],
    rule: RuleName,
    false_alarm_rate: float,
    margin: float,
) -> NDArray[np.bool_]:
    """Return which values a threshold rejects that the OK values give.

    Args:
        ok: statistic of the OK images that were learned, from their leave-one-out maps.
        values: float64 [I], statistic of the images to judge.
        rule: how the threshold is made.
        false_alarm_rate: α of the rule `conformal`.
        margin: of the rule `spec`.

    Returns:
        bool [I].
    """
    if rule == "spec":
        return np.asarray(values > choose_threshold([float(v) for v in ok], (), margin).threshold)
    threshold = just_above(level_of([float(v) for v in ok], false_alarm_rate))
    return np.array([reaches(value, threshold) for value in values])
