"""Measure the decision: false alarms against the stated rate, and defects found, by number of OK images and by size.

Everything is repeated over random splits of the OK images. Maps, peaks, calibrations and verdicts are the gateway's.
"""

from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray
from sklearn.metrics import roc_auc_score

from evaluation.evaluate import Stage
from evaluation.fitted import Fitted, Measured
from evaluation.pasted import Defect, pasted
from evaluation.pool import Pool, read_picture
from evaluation.splits import Split, of_types, random_splits
from evaluation.statistic import RULES, Statistic, rejects
from gateway.settings import Settings
from gateway.store.manifest import Calibration

N_SHOWN = (1, 2, 3)
"""Numbers of NG images that are shown to a calibration."""
SERVICE = "verdict of the service"
_PASTED_AT_ONCE = 8


@dataclass(frozen=True, slots=True)
class Plan:
    """What to measure."""

    n_splits: int
    learn: Sequence[int]
    """Numbers of OK images to learn, ascending. Everything but the service's rates is measured with the last."""
    rates: Sequence[float]
    """False-alarm rates to ask for. NG images are shown at the first."""
    statistics: Sequence[Statistic]
    defects: Sequence[Defect]
    n_pasted: int
    """OK images that defects are pasted on."""
    mm_per_px: float
    seed: int = 0


@dataclass(frozen=True, slots=True)
class Outcome:
    """Verdicts of one calibration on the unseen images of one split."""

    false_alarms: int
    n_ok: int
    found: int
    n_ng: int
    stated: float | None = None
    """False-alarm rate that the calibration states for the verdict."""
    stated_interval: tuple[float, float] | None = None
    found_by_type: dict[str, float] = field(default_factory=dict)
    """Share of each type of defect that is rejected."""


@dataclass(frozen=True, slots=True)
class Shown:
    """Changes by NG images that are given to the calibration of one split."""

    kind: str
    which: str
    """`grossest` or `faintest`."""
    n: int
    without: Outcome
    shown: Outcome
    missed: int
    """NG images shown that the verdict accepts."""


@dataclass(slots=True)
class Findings:
    """Everything that was measured; a list has one item for each split."""

    service: dict[tuple[int, float], list[Outcome]] = field(default_factory=lambda: defaultdict(list))
    """By the number of learned images and the rate."""
    before: list[Outcome] = field(default_factory=list)
    """The verdict by p99 of the OK scores and the margin, which also cuts the regions."""
    statistics: dict[tuple[str, str, float], list[Outcome]] = field(default_factory=lambda: defaultdict(list))
    """By statistic, rule and rate."""
    auroc: dict[str, list[float]] = field(default_factory=lambda: defaultdict(list))
    shown: list[Shown] = field(default_factory=list)
    pasted: dict[tuple[Defect | None, float], list[int]] = field(default_factory=lambda: defaultdict(lambda: [0, 0]))
    """Rejected and inspected images by defect and rate, over all splits; without a defect for None."""
    n_pasted_images: int = 0


async def measure(pool: Pool, plan: Plan, settings: Settings, stage: Stage) -> Findings:
    """Measure what a plan asks for.

    Args:
        pool: loaded.
        plan: what to measure.
        settings: of the service.
        stage: shows progress.
    """
    findings = Findings()
    splits = random_splits(len(pool.ok), plan.learn[-1], plan.n_splits, plan.seed)
    progress = stage(f"{pool.name}: splits", len(splits) * len(plan.learn))
    pasters = []
    for split in splits:
        for n_learn in plan.learn:
            fitted = Fitted(pool, split.learned(n_learn), settings, plan.mm_per_px)
            judged = _Judged(pool, split, fitted)
            calibrations = [fitted.calibrated(rate) for rate in plan.rates]
            for rate, outcome in zip(plan.rates, judged.outcomes(calibrations), strict=True):
                findings.service[n_learn, rate].append(outcome)
            if n_learn == plan.learn[-1]:
                findings.before += judged.outcomes([fitted.calibrated_by_spec()])
                _statistics(findings, judged, plan, settings)
                findings.shown += _shown(judged, plan.rates[0])
                pasters.append((split, fitted, calibrations))
            progress(1)
    if plan.defects:
        await _pasted(findings, pool, plan, pasters, stage)
    return findings


class _Judged:
    """The unseen OK images of a split, then all NG images."""

    def __init__(self, pool: Pool, split: Split, fitted: Fitted) -> None:
        self.fitted = fitted
        indices = [*split.unseen, *pool.ng_indices]
        self.is_ng = np.array([index >= len(pool.ok) for index in indices])
        self.kinds = [sample.kind for sample in pool.ng]
        self.maps = fitted.maps(map(pool.tokens, indices), pool.frames(indices))
        self.measured = fitted.measured(self.maps)
        n_unseen = len(split.unseen)
        self.ng = list(zip(self.measured.scores[n_unseen:], self.measured.peaks[n_unseen:], strict=True))

    def outcomes(self, calibrations: Sequence[Calibration]) -> list[Outcome]:
        rejected = self.fitted.rejected(calibrations, self.measured)
        return [
            self.outcome(row, calibration.verdict_false_alarm_rate, calibration.verdict_false_alarm_interval)
            for row, calibration in zip(rejected, calibrations, strict=True)
        ]

    def outcome(
        self,
        rejected: NDArray[np.bool_],
        stated: float | None = None,
        interval: tuple[float, float] | None = None,
    ) -> Outcome:
        ok, ng = rejected[~self.is_ng], rejected[self.is_ng]
        kinds = np.array(self.kinds)
        by_type = {kind: float(ng[kinds == kind].mean()) for kind in sorted(set(self.kinds))}
        return Outcome(int(ok.sum()), len(ok), int(ng.sum()), len(ng), stated, interval, by_type)


def _statistics(findings: Findings, judged: _Judged, plan: Plan, settings: Settings) -> None:
    for statistic in plan.statistics:
        ok = statistic.of(judged.fitted.ok_maps, settings.blur_sigma, plan.mm_per_px)
        values = statistic.of(judged.maps, settings.blur_sigma, plan.mm_per_px)
        findings.auroc[statistic.name].append(float(roc_auc_score(judged.is_ng, values)))
        for rule in RULES:
            for rate in plan.rates if rule == "conformal" else plan.rates[:1]:
                rejected = rejects(ok, values, rule, rate, settings.threshold_margin)
                findings.statistics[statistic.name, rule, rate].append(judged.outcome(rejected))


def _shown(judged: _Judged, rate: float) -> list[Shown]:
    """Give one, two and three NG images of each type, the grossest and the faintest, to calibrations at a rate."""
    cases = []
    for kind, places in of_types(judged.kinds, [score for score, _ in judged.ng]).items():
        for n in N_SHOWN:
            if n <= len(places):
                cases += [(kind, "grossest", places[-n:]), (kind, "faintest", places[:n])]
    calibrations = [judged.fitted.calibrated(rate)]
    calibrations += [judged.fitted.calibrated(rate, [judged.ng[i] for i in places]) for _, _, places in cases]
    rejected = judged.fitted.rejected(calibrations, judged.measured)
    without = judged.outcome(rejected[0])
    return [
        Shown(kind, which, len(places), without, judged.outcome(row), int((~row[judged.is_ng][places]).sum()))
        for (kind, which, places), row in zip(cases, rejected[1:], strict=True)
    ]


async def _pasted(
    findings: Findings,
    pool: Pool,
    plan: Plan,
    pasters: Sequence[tuple[Split, Fitted, Sequence[Calibration]]],
    stage: Callable[[str, int], Callable[[int], None]],
) -> None:
    """Paste defects on OK images, and judge each image in the splits that have not learned it."""
    unseen = sorted({index for split, _, _ in pasters for index in split.unseen})
    chosen = np.random.default_rng(plan.seed).permutation(unseen)[: plan.n_pasted].tolist()
    findings.n_pasted_images = len(chosen)
    cases: list[Defect | None] = [None, *plan.defects]
    progress = stage(f"{pool.name}: pasted defects", len(chosen) * len(cases))
    for index in sorted(chosen):
        pixels = read_picture(pool.ok[index], pool.limits).pixels
        frame = pool.records[index].frame
        own = [paster for paster in pasters if index in paster[0].unseen]
        for start in range(0, len(cases), _PASTED_AT_ONCE):
            part = cases[start : start + _PASTED_AT_ONCE]
            images = [
                pixels if case is None else pasted(pixels, case, plan.mm_per_px, (plan.seed, index)) for case in part
            ]
            tokens = await pool.tokens_of(images)
            for _, fitted, calibrations in own:
                measured: Measured = fitted.measured(fitted.maps(tokens, [frame] * len(part)))
                for rate, row in zip(plan.rates, fitted.rejected(calibrations, measured), strict=True):
                    for case, is_rejected in zip(part, row, strict=True):
                        count = findings.pasted[case, rate]
                        count[0] += int(is_rejected)
                        count[1] += 1
            progress(len(part))
