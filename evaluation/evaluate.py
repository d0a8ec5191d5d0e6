"""Fit, calibrate and inspect for each entry of a sweep. Return the figures and the data of the plots."""

import itertools
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from evaluation.data import GOOD, DataSet, Sample
from evaluation.inspection import Calibrated, Cost, FitRecipe, Inspector, Judged, Progress
from evaluation.metrics import ImageMetrics, PixelMetrics, Rate, image_metrics, pixel_metrics, rate
from gateway.learning.request import TilesAsked
from gateway.store.manifest import DetectorKind
from postprocess.anomaly_map import ScoreRule

Stage = Callable[[str, int], Progress]
"""Show the start of a long step and the number of finished images."""


@dataclass(frozen=True, slots=True)
class Rates:
    """Errors of the calibrated threshold, by the score alone and by the whole verdict."""

    by_score: Rate
    by_verdict: Rate


@dataclass(frozen=True, slots=True, eq=False)
class Run:
    """One row of the report."""

    data: str
    detector: DetectorKind
    rule: ScoreRule
    model: dict[str, Any]
    fit: dict[str, Any]
    calibration: Calibrated
    image: ImageMetrics
    pixel: PixelMetrics | None
    false_alarms: Rates
    misses: Rates
    misses_by_type: dict[str, Rates]
    cost: Cost
    judged: Sequence[Judged]


async def evaluate(
    inspector: Inspector,
    data: DataSet,
    *,
    coreset_rates: Sequence[float | None] = (None,),
    seeds: Sequence[int | None] = (None,),
    p_scores: Sequence[float | None] = (None,),
    exclude_suspects: bool = False,
    tiles: TilesAsked | None = None,
    n_timed: int = 0,
    stage: Stage,
    on_run: Callable[[Run], Any] | None = None,
) -> list[Run]:
    """Evaluate a model on a data set: each coreset rate with each seed is fitted, and judged at each percentile.

    Args:
        inspector: started.
        data: what to learn and to inspect.
        coreset_rates: rates of the fits; None takes the gateway's.
        seeds: seeds of the fits; None takes the gateway's.
        p_scores: percentiles of the score; None takes the gateway's.
        exclude_suspects: leave suspects out of the bank.
        tiles: how many tiles the images are cut into; None takes the gateway's choice.
        n_timed: number of images to time one by one, spread over the images to inspect.
        stage: shows progress.
        on_run: awaited after each run, while the inspector still holds its memory bank.
    """
    runs = []
    for coreset_rate, seed in itertools.product(coreset_rates, seeds):
        progress = stage(f"{data.name}: fit", len(data.train))
        recipe = FitRecipe(coreset_rate, seed, exclude_suspects, tiles)
        fit = await inspector.fit(data.train, recipe, progress)
        # The maps do not depend on the percentile.
        pixel = await _pixel_metrics(inspector, data, stage) if data.has_masks else None
        cost: Cost | None = None
        for p_score in p_scores:
            calibration = await inspector.calibrate(p_score)
            if cost is None:
                timed = _spread(data.test, n_timed)
                cost = await inspector.cost(timed, stage(f"{data.name}: time", len(timed)))
            label = f"{data.name}: inspect at p{calibration.score_percentile:g}"
            judged = await inspector.inspect(data.test, stage(label, len(data.test)))
            run = _run(inspector, data, fit, calibration, pixel, cost, judged)
            runs.append(run)
            if on_run is not None:
                await on_run(run)
    return runs


async def _pixel_metrics(inspector: Inspector, data: DataSet, stage: Stage) -> PixelMetrics:
    progress = stage(f"{data.name}: maps", len(data.test))
    maps, truths, left_out = [], [], []
    for sample in data.test:
        found = await inspector.map_of(sample)
        truth = sample.truth((found.shape[1], found.shape[0]))
        if truth is None:
            left_out.append(sample.name)
        else:
            maps.append(found)
            truths.append(truth)
        progress(1)
    return pixel_metrics(maps, truths, left_out)


def _run(
    inspector: Inspector,
    data: DataSet,
    fit: dict[str, Any],
    calibration: Calibrated,
    pixel: PixelMetrics | None,
    cost: Cost,
    judged: Sequence[Judged],
) -> Run:
    threshold = calibration.threshold
    bad = [j for j in judged if j.sample.is_ng]
    types = [kind for kind in data.counts() if kind != GOOD]
    return Run(
        data=data.name,
        detector=inspector.detector,
        rule=inspector.rule,
        model=inspector.describe(),
        fit=fit,
        calibration=calibration,
        image=image_metrics([j.score for j in judged], [j.sample.is_ng for j in judged]),
        pixel=pixel,
        false_alarms=_rates([j for j in judged if not j.sample.is_ng], threshold, rejected_is_wrong=True),
        misses=_rates(bad, threshold, rejected_is_wrong=False),
        misses_by_type={
            kind: _rates([j for j in bad if j.sample.kind == kind], threshold, rejected_is_wrong=False)
            for kind in types
        },
        cost=cost,
        judged=judged,
    )


def _spread(samples: Sequence[Sample], n: int) -> list[Sample]:
    """Return at most `n` items, evenly spread."""
    return [samples[i * len(samples) // n] for i in range(n)] if n < len(samples) else list(samples)


def _rates(judged: Iterable[Judged], threshold: float, *, rejected_is_wrong: bool) -> Rates:
    judged = list(judged)
    return Rates(
        by_score=rate([(j.score > threshold) is rejected_is_wrong for j in judged]),
        by_verdict=rate([j.is_rejected is rejected_is_wrong for j in judged]),
    )


def worst_misses(run: Run) -> list[Judged]:
    """Return the missed bad images, lowest score first."""
    return sorted((j for j in run.judged if j.sample.is_ng and not j.is_rejected), key=lambda j: j.score)


def worst_false_alarms(run: Run) -> list[Judged]:
    """Return the rejected good images, highest score first."""
    return sorted((j for j in run.judged if not j.sample.is_ng and j.is_rejected), key=lambda j: -j.score)
