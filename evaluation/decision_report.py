"""`report.json` and `report.md` of repeated splits."""

from collections.abc import Iterable, Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from typing import Any

import numpy as np
from scipy.stats import betabinom

from bench.report import machine
from evaluation.data import DataSet
from evaluation.decision import N_SHOWN, Findings, Outcome, Plan, Shown
from evaluation.decision_plots import share_of, sizes_of
from evaluation.models import weights_in_words
from evaluation.pasted import Defect
from evaluation.report import versions
from gateway.networks.model_description import ModelDescription
from gateway.settings import Settings


def heading(model: ModelDescription, runtime: str, settings: Settings, options: str) -> list[str]:
    """Return the lines that describe model, settings, versions and machine."""
    return [
        "# Evaluation of the decision",
        "",
        f"- **Date**: {datetime.now(UTC).isoformat(timespec='seconds')}",
        f"- **Weights**: {weights_in_words(model)}",
        f"- **Model**: {model.extractor}, layers {'/'.join(map(str, model.layers))}, {model.input_size} px, {runtime}",
        f"- **Settings**: coreset_rate {settings.coreset_rate:g}, k {settings.k}, p_score {settings.p_score:g}, "
        f"blur_sigma {settings.blur_sigma:g}, area_mm2_thr {settings.area_mm2_thr:g}, "
        f"threshold_margin {settings.threshold_margin:g}",
        f"- **Command**: {options}",
        f"- **Versions**: {', '.join(f'{name} {version}' for name, version in versions().items())}",
        f"- **Machine**: {', '.join(f'{k} {v}' for k, v in machine().items() if k not in ('python', 'versions'))}",
        "",
    ]


def section(data: DataSet, findings: Findings, plan: Plan, curve: str | None) -> list[str]:
    """Return the part of the report about one data set.

    Args:
        data: the data set.
        findings: the results.
        plan: the plan of the measurement.
        curve: file name of the curve of sizes, or None.
    """
    first = next(iter(findings.service.values()))[0]
    lines = [
        f"## {data.name}",
        "",
        f"{plan.n_splits} random splits (seed {plan.seed}): each learns up to {plan.learn[-1]} OK images, and inspects "
        f"the {first.n_ok} others and {first.n_ng} NG images (SHA-256 of the data {data.checksum()[:16]}). "
        "Shares are means over the splits.",
        "",
        "### The verdict against the stated rate",
        "",
        *_service(findings, plan),
        "",
        f"Beyond: splits whose share of rejected OK images, of {first.n_ok}, is above the 95 % interval that the "
        "calibration states for the rate. In brackets: splits with more rejects than so many images have in 97.5 % of "
        "all cases at the stated rate (beta-binomial).",
        "",
    ]
    if findings.statistics:
        lines += ["### Statistics and rules", "", *_statistics(findings, plan), ""]
    if findings.shown:
        lines += [f"### NG images shown, at a rate of {plan.rates[0]:.0%}", "", *_shown(findings.shown), ""]
    if curve is not None:
        lines += ["### What can be seen", "", f"![Share of pasted defects that is rejected, by size]({curve})", ""]
        lines += [*_pasted(findings, plan), ""]
    return lines


def _service(findings: Findings, plan: Plan) -> list[str]:
    rows = [
        _cells(
            str(n),
            f"{rate:.1%}",
            _stated(outcomes),
            _false_alarms(outcomes),
            f"{_beyond(outcomes)} ({_unlikely(outcomes, n)})",
            _found(outcomes),
        )
        for (n, rate), outcomes in findings.service.items()
    ]
    rows.append(
        _cells(
            str(plan.learn[-1]),
            "none: p99 and margin",
            _stated(findings.before),
            _false_alarms(findings.before),
            f"{_beyond(findings.before)} ({_unlikely(findings.before, plan.learn[-1])})",
            _found(findings.before),
        )
    )
    titles = _cells("OK learned", "rate asked for", "stated", "OK rejected (worst split)", "beyond", "NG rejected")
    return [titles, _RULE * 6 + "|", *rows]


def _statistics(findings: Findings, plan: Plan) -> list[str]:
    titles = _cells("statistic", "AUROC", "rule", "OK rejected (worst split)", "NG rejected")
    rows = [
        _cells(
            name,
            f"{np.mean(findings.auroc[name]):.3f}",
            f"conformal, {rate:.0%}" if rule == "conformal" else "p99 and margin",
            _false_alarms(outcomes),
            _found(outcomes),
        )
        for (name, rule, rate), outcomes in findings.statistics.items()
    ]
    return [titles, _RULE * 5 + "|", *rows]


def _shown(shown: Sequence[Shown]) -> list[str]:
    titles = _cells(
        "shown", "NG rejected without", "with", "lowest change in a split", "highest", "OK rejected without", "with",
        "shown ones accepted",
    )  # fmt: skip
    rows = []
    for which in ("grossest", "faintest"):
        for n in N_SHOWN:
            own = [each for each in shown if each.which == which and each.n == n]
            if own:
                changes = [(each.shown.found - each.without.found) / each.without.n_ng for each in own]
                rows.append(
                    _cells(
                        f"the {n} {which} of a type",
                        _found([each.without for each in own]),
                        _found([each.shown for each in own]),
                        f"{min(changes):+.1%}",
                        f"{max(changes):+.1%}",
                        _share(_mean_false_alarms([each.without for each in own])),
                        _share(_mean_false_alarms([each.shown for each in own])),
                        _share(sum(each.missed for each in own) / sum(each.n for each in own)),
                    )
                )
    return [titles, _RULE * 8 + "|", *rows]


def _pasted(findings: Findings, plan: Plan) -> list[str]:
    sizes = sizes_of(plan.defects)
    lines = [_cells("defect", "rate", "none", *(f"{size:g} mm" for size in sizes)), _RULE * (3 + len(sizes)) + "|"]
    for rate in plan.rates:
        for form, contrast in dict.fromkeys((defect.form, defect.contrast) for defect in plan.defects):
            shares = [share_of(findings, Defect(form, size, contrast), rate) for size in sizes]
            none = share_of(findings, None, rate)
            lines.append(_cells(f"{form}, {contrast:+.0%}", f"{rate:.0%}", *(_share(v) for v in (none, *shares))))
    return lines


def as_json(data: DataSet, findings: Findings, plan: Plan) -> dict[str, Any]:
    """Return everything that was measured on a data set."""
    return {
        "data": {"name": data.name, "sha256": data.checksum()},
        "plan": {**asdict(plan), "statistics": [each.name for each in plan.statistics]},
        "service": [
            {"learned": n, "rate": rate, "splits": list(map(asdict, outcomes))}
            for (n, rate), outcomes in findings.service.items()
        ],
        "p99_and_margin": list(map(asdict, findings.before)),
        "auroc": dict(findings.auroc),
        "statistics": [
            {"statistic": name, "rule": rule, "rate": rate, "splits": list(map(asdict, outcomes))}
            for (name, rule, rate), outcomes in findings.statistics.items()
        ],
        "shown": list(map(asdict, findings.shown)),
        "pasted": [
            {"defect": None if defect is None else asdict(defect), "rate": rate, "rejected": rejected, "n": n}
            for (defect, rate), (rejected, n) in findings.pasted.items()
        ],
    }


_RULE = "| --- "


def _cells(*cells: str) -> str:
    return f"| {' | '.join(cells)} |"


def _share(share: float) -> str:
    return "–" if np.isnan(share) else f"{share:.1%}"


def _stated(outcomes: Sequence[Outcome]) -> str:
    return _share(float(np.mean([each.stated for each in outcomes if each.stated is not None])))


def _mean_false_alarms(outcomes: Iterable[Outcome]) -> float:
    return float(np.mean([each.false_alarms / each.n_ok for each in outcomes]))


def _false_alarms(outcomes: Sequence[Outcome]) -> str:
    worst = max(each.false_alarms / each.n_ok for each in outcomes)
    return f"{_mean_false_alarms(outcomes):.1%} ({worst:.1%})"


def _found(outcomes: Sequence[Outcome]) -> str:
    return _share(float(np.mean([each.found / each.n_ng for each in outcomes])))


def _beyond(outcomes: Sequence[Outcome]) -> int:
    return sum(
        each.stated_interval is not None and each.false_alarms / each.n_ok > each.stated_interval[1]
        for each in outcomes
    )


def _unlikely(outcomes: Sequence[Outcome], n_learned: int) -> int:
    """Return how many splits have more rejects than 97.5 % of all cases at the stated rate (x+1)/(n+1)."""
    found = 0
    for each in outcomes:
        if each.stated is not None:
            expected = each.stated * (n_learned + 1)
            most = betabinom.ppf(0.975, each.n_ok, expected, n_learned + 1 - expected)
            found += each.false_alarms > most
    return found
