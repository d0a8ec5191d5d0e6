"""One pair decides: the score is above the threshold exactly when the decision is NG."""

import itertools
from dataclasses import fields
from typing import Any

import numpy as np
import pytest

from gateway.gui.deciding import deciding, peak_limit
from gateway.inspection.answer import Inspection
from postprocess.peak import reaches
from postprocess.verdict import judge


def inspection(score: float, threshold: float | None, peak: float | None, peak_threshold: float | None, nothing=False):
    """Return an inspection with these numbers, and with the verdict that `answer` gives them."""
    has_region = peak is not None and peak_threshold is not None and not nothing and reaches(peak, peak_threshold)
    verdict, reason = judge(score, threshold, int(has_region), shows_nothing=nothing)
    known: dict[str, Any] = dict.fromkeys(field.name for field in fields(Inspection))
    known |= {"score": score, "threshold": threshold, "peak": peak, "peak_threshold": peak_threshold}
    return Inspection(**{**known, "verdict": verdict, "verdict_reason": reason})


LEVELS = [0.5, float(np.nextafter(np.float32(0.5), np.float32(1))), 0.5 + 1e-12, 0.50001, 0.7, 2.5]


@pytest.mark.parametrize("nothing", [False, True])
def test_the_pair_says_what_the_verdict_says_at_every_edge(nothing) -> None:
    for score, threshold, peak, peak_threshold in itertools.product(LEVELS, LEVELS, [None, *LEVELS], LEVELS):
        result = inspection(score, threshold, peak, peak_threshold, nothing)
        found = deciding(result)
        assert found is not None
        assert found.decision == result.verdict
        assert (found.score > found.threshold) == (result.verdict == "ng"), result


def test_the_pair_is_that_of_the_criterion_that_decided() -> None:
    by_peak, by_score = inspection(0.1, 0.6, 0.75, 0.5), inspection(0.7, 0.6, 0.25, 0.5)
    assert [deciding(each).score for each in (by_peak, by_score)] == [0.75, 0.7]
    assert [deciding(each).threshold for each in (by_peak, by_score)] == [peak_limit(0.5), 0.6]
    passed, without_peak = inspection(0.1, 0.6, 0.25, 0.5), inspection(0.1, 0.6, None, 0.5)
    assert [deciding(each).score for each in (passed, without_peak)] == [0.25, 0.1]


def test_without_a_threshold_there_is_no_decision_even_if_nothing_is_shown() -> None:
    assert deciding(inspection(0.5, None, 0.5, None)) is None
    assert deciding(inspection(0.5, None, 0.5, None, nothing=True)) is None
