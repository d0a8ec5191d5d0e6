"""Write `report.json` with all figures, and `report.md` for readers."""

import importlib.metadata
import platform
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from typing import Any

from bench.report import machine
from evaluation.data import DataSet
from evaluation.evaluate import Rates, Run
from evaluation.models import weights_in_words
from gateway.settings import HOME
from postprocess.anomaly_map import score_in_words

_PACKAGES = ("numpy", "scipy", "scikit-learn", "opencv-python-headless", "openvino", "faiss-cpu")
_AUPRO = (
    "AUPRO is this project's own function after Bergmann et al. (IJCV 2021): mean overlap of each connected defect "
    "region over the share of false pixels, up to 30 %. Its tests compare it with a count over every threshold. "
    "The other measures are scikit-learn's."
)


def as_json(
    runs: Sequence[Run],
    data: Sequence[DataSet],
    options: dict[str, Any],
    plots: Mapping[str, Sequence[str]],
    maps: str,
) -> dict[str, Any]:
    """Return everything that was measured, and its conditions.

    Args:
        runs: in the order of the report.
        data: the data sets of the runs.
        options: options of the command.
        plots: file names by data set, and by data set and detector, as `plots_of` calls them.
        maps: origin of the maps that pixel figures are computed from.
    """
    return {
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "versions": versions(),
        "options": options,
        "machine": {name: value for name, value in machine().items() if name not in ("python", "versions")},
        "maps": maps,
        "data": [
            {
                "name": d.name,
                "n_train": len(d.train),
                "test": d.counts(),
                "has_masks": d.has_masks,
                "ignored": d.ignored,
                "n_seen": d.n_seen,
                "sha256": d.checksum(),
            }
            for d in data
        ],
        "plots": {name: list(files) for name, files in plots.items()},
        "runs": [_run_as_json(run) for run in runs],
    }


def plots_of(data: str, detector: str | None = None) -> str:
    """Return the name under which the plots of a data set, or of one detector on it, are stored."""
    return data if detector is None else f"{data}: {detector}"


def _run_as_json(run: Run) -> dict[str, Any]:
    def rates(found: Rates) -> dict[str, Any]:
        return {
            name: {**asdict(r), "share": r.share}
            for name, r in (("by_score", found.by_score), ("by_verdict", found.by_verdict))
        }

    return {
        "data": run.data,
        "detector": run.detector,
        "score": score_in_words(run.rule, run.calibration.score_percentile),
        "model": run.model,
        "fit": run.fit,
        "calibration": asdict(run.calibration),
        "image": asdict(run.image),
        "pixel": None if run.pixel is None else asdict(run.pixel),
        "false_alarms": rates(run.false_alarms),
        "misses": rates(run.misses),
        "misses_by_type": {kind: rates(found) for kind, found in run.misses_by_type.items()},
        "cost": asdict(run.cost),
        "images": [
            {
                "image": j.sample.name,
                "kind": j.sample.kind,
                "score": j.score,
                "verdict": j.verdict,
                "reason": j.reason,
                "n_regions": len(j.contours),
            }
            for j in run.judged
        ],
    }


def as_markdown(report: dict[str, Any]) -> str:
    """Return the report for readers, from the result of `as_json`."""
    runs, first = report["runs"], report["runs"][0]
    parts = ["# Evaluation", "", *_made_with(report), ""]
    # The first run of each detector on each data set, with its pictures.
    shown: dict[tuple[str, str], dict[str, Any]] = {}
    for run in runs:
        shown.setdefault((run["data"], run["detector"]), run)
    for data in report["data"]:
        rivals = [run for (name, _), run in shown.items() if name == data["name"]]
        if len(rivals) > 1:
            parts += [f"## {data['name']}: side by side", "", *_side_by_side(rivals), ""]
            parts += [*_pictures(report["plots"].get(plots_of(data["name"]), ())), ""]
    if len(runs) > 1:
        parts += ["## All runs", "", *_table_of_runs(runs), ""]
    for (data_name, detector), run in shown.items():
        title = f"## {data_name}" + (f": {_label(run)}" if len(runs) > 1 else "")
        pictures = _pictures(report["plots"].get(plots_of(data_name, detector), ()))
        parts += [title, "", *_details(run), *pictures, ""]
    if first["pixel"] is not None:
        parts += [f"Pixel figures are of {report['maps']}, good images included. {_AUPRO}", ""]
    return "\n".join(parts)


def _made_with(report: dict[str, Any]) -> list[str]:
    lines = [f"- **Date**: {report['date']}"]
    for d in report["data"]:
        test = ", ".join(f"{n} {kind}" for kind, n in d["test"].items())
        ignored = ", ".join(f"{n} {label}" for label, n in d["ignored"].items())
        notes = f"; left out: {ignored}" if ignored else ""
        if d["n_seen"]:
            notes += f"; **{d['n_seen']} of those inspected are the same as learned ones**"
        lines.append(
            f"- **Data**: {d['name']}, learned from {d['n_train']} OK images, inspected {test}{notes} "
            f"(SHA-256 {d['sha256'][:16]})"
        )
    models: dict[tuple[str, str], dict[str, Any]] = {}
    for run in report["runs"]:
        models.setdefault((run["detector"], run["model"]["fingerprint"]), run)
    weights = {detector: run["model"]["weights"] for (detector, _), run in models.items()}
    lines += [f"- **Weights**, {detector}: {weights_in_words(own)}" for detector, own in weights.items()]
    for (detector, _), run in models.items():
        is_one_of_some = [each for each, _ in models].count(detector) > 1
        name = f"{detector} of {run['data']}" if is_one_of_some and detector == "student-teacher" else detector
        lines.append(f"- **Model**, {name}: {_pairs(run['model'], leave_out=('weights',))}")
    lines.append(f"- **Options**: {_pairs(report['options'])}")
    lines.append(f"- **Versions**: {', '.join(f'{name} {version}' for name, version in report['versions'].items())}")
    lines.append(f"- **Machine**: {_pairs(report['machine'])}")
    return lines


def _side_by_side(runs: Sequence[dict[str, Any]]) -> list[str]:
    def pixel(name: str) -> list[str]:
        return ["–" if run["pixel"] is None else f"{run['pixel'][name]:.4f}" for run in runs]

    rows = [
        ("image AUROC", [f"{run['image']['auroc']:.4f}" for run in runs]),
        ("image AP", [f"{run['image']['ap']:.4f}" for run in runs]),
        ("image F1-max", [f"{run['image']['f1_max']:.4f}" for run in runs]),
        ("pixel AUROC", pixel("auroc")),
        ("AUPRO (30 % FPR)", pixel("aupro")),
        ("score", [run["score"] for run in runs]),
        *(
            (f"{name}, by {by}", [_share(run[what][f"by_{by}"]) for run in runs])
            for by in ("score", "verdict")
            for what, name in (("false_alarms", "false alarms"), ("misses", "misses"))
        ),
        ("OK images learned", [_learned(run["fit"]) for run in runs]),
        ("OK scores to calibrate by", [str(run["calibration"]["n_ok"]) for run in runs]),
        *_rows_of_cost(runs),
    ]
    head = ["", *(run["detector"] for run in runs)]
    lines = [head, ["---"] * len(head), *([name, *own] for name, own in rows)]
    times = (
        f"Times are of {runs[0]['cost']['n_timed']} inspections, one after another, each with its heatmap, "
        f"{runs[0]['model']['how']}; training and fits shared the machine with its other load."
    )
    return [*(f"| {' | '.join(cells)} |" for cells in lines), "", times]


def _learned(fit: dict[str, Any]) -> str:
    held_back = fit.get("n_validation")
    return str(fit["n_ok"]) if held_back is None else f"{fit['n_ok']}, {held_back} of them to validate"


def _rows_of_cost(runs: Sequence[dict[str, Any]]) -> list[tuple[str, list[str]]]:
    def shown(name: str, unit: str, factor: float = 1, digits: int = 1) -> list[str]:
        values = [run["cost"][name] for run in runs]
        return ["–" if value is None else f"{value * factor:.{digits}f} {unit}" for value in values]

    times = [seconds + _of_a_training(run["fit"]) for seconds, run in zip(shown("learn_s", "s"), runs, strict=True)]
    return [
        ("fit or training", times),
        ("one inspection, p50", shown("p50_ms", "ms")),
        ("one inspection, p95", shown("p95_ms", "ms")),
        ("a version on disk", shown("version_bytes", "MB", 1e-6)),
        ("a version in memory, without its own compiled network", shown("memory_bytes", "MB", 1e-6)),
        ("a network that all versions share", shown("shared_bytes", "MB", 1e-6)),
    ]


def _of_a_training(fit: dict[str, Any]) -> str:
    if "trained" not in fit:
        return ""
    what = f"{fit['epochs']} epochs on {fit['device']}, {fit['threads']} threads"
    return f", {what}" if fit["trained"] == "now" else f", {what}, its own only: it was trained earlier"


def _pairs(values: dict[str, Any], leave_out: Sequence[str] = ()) -> str:
    return ", ".join(
        f"{name} {_plain(value)}" for name, value in values.items() if name not in leave_out and value is not None
    )


def _plain(value: Any) -> str:
    if isinstance(value, list):
        return "/".join(_plain(v) for v in value)
    return f"{value:g}" if isinstance(value, float) else str(value)


def _label(run: dict[str, Any]) -> str:
    layers = run["model"].get("layers")
    shown = f"layers {_plain(layers).replace('/', ',')}, " if layers else ""
    return f"{run['detector']}, {shown}{run['score']}"


def _table_of_runs(runs: Sequence[dict[str, Any]]) -> list[str]:
    columns = [
        "data",
        "detector",
        "layers",
        "input",
        "runtime",
        "coreset",
        "seed",
        "p_score",
        "AUROC",
        "AP",
        "F1-max",
        "pixel AUROC",
    ]
    columns += [
        "AUPRO",
        "threshold",
        "false alarms, score",
        "misses, score",
        "false alarms, verdict",
        "misses, verdict",
    ]
    lines = ["| " + " | ".join(columns) + " |", "|" + " --- |" * len(columns)]
    for run in runs:
        pixel, image, c = run["pixel"], run["image"], run["calibration"]
        layers, size = run["model"].get("layers"), run["model"].get("input_size")
        cells = [
            run["data"],
            run["detector"],
            "–" if layers is None else _plain(layers).replace("/", ","),
            "–" if size is None else str(size),
            run["model"]["runtime"],
            f"{run['fit']['coreset_rate']:g}" if "coreset_rate" in run["fit"] else "–",
            str(run["fit"]["seed"]),
            f"{c['score_percentile']:g}",
            *(f"{image[name]:.3f}" for name in ("auroc", "ap", "f1_max")),
            *("–" if pixel is None else f"{pixel[name]:.3f}" for name in ("auroc", "aupro")),
            f"{c['threshold']:.3f}",
            *(_share(run[what][by]) for by in ("by_score", "by_verdict") for what in ("false_alarms", "misses")),
        ]
        lines.append("| " + " | ".join(cells) + " |")
    return lines


def _share(found: dict[str, Any]) -> str:
    return f"{found['share']:.1%} ({found['count']}/{found['n']})"


def _with_interval(found: dict[str, Any]) -> str:
    return f"{_share(found)}, {found['low']:.1%} to {found['high']:.1%}"


def _details(run: dict[str, Any]) -> list[str]:
    image, pixel, c, fit = run["image"], run["pixel"], run["calibration"], run["fit"]
    lines = ["| measure | value |", "| --- | --- |", f"| image AUROC | {image['auroc']:.4f} |"]
    lines += [f"| image AP | {image['ap']:.4f} |"]
    lines += [f"| image F1-max | {image['f1_max']:.4f}, at {image['f1_threshold']:.3f} |"]
    if pixel is not None:
        lines += [f"| pixel AUROC | {pixel['auroc']:.4f} |"]
        lines += [f"| AUPRO (30 % FPR) | {pixel['aupro']:.4f}, {pixel['n_regions']} regions |"]
        if pixel["left_out"]:
            shown = ", ".join(pixel["left_out"][:5]) + (", …" if len(pixel["left_out"]) > 5 else "")
            lines += [
                f"| bad images without a drawn defect, not in the pixel figures | {len(pixel['left_out'])}: {shown} |"
            ]
    lines += [f"| {name} | {value} |" for name, (value,) in _rows_of_cost([run]) if value != "–"]
    low, high = c["stated_interval"]
    lines += [
        "",
        f"Fit: {_pairs(fit, leave_out=('suspects', 'warnings'))}"
        f"{'; suspects: ' + ', '.join(fit['suspects']) if fit['suspects'] else ''}.",
        "",
        f"Threshold {c['threshold']:.4f} (regions {c['pixel_threshold']:.4f}, of {c['area_mm2_thr']:g} mm² and more) "
        f"by {c['method']} over {c['n_ok']} OK scores, {run['score']} each{_whose(fit)}. The calibration states that "
        f"the score rejects {c['stated_rate']:.1%} of unseen OK images, {low:.1%} to {high:.1%}"
        + (
            f", and the verdict {c['stated_verdict_rate']:.1%}, "
            f"{c['stated_verdict_interval'][0]:.1%} to {c['stated_verdict_interval'][1]:.1%}."
            if c["stated_verdict_interval"] is not None
            else "."
        ),
        "",
        *(f"> {warning}\n" for warning in (*fit["warnings"], *c["warnings"])),
        "| at this threshold | by the score | by the verdict (score or region) |",
        "| --- | --- | --- |",
        f"| false alarms | {_both(run['false_alarms'])} |",
        f"| misses | {_both(run['misses'])} |",
        *(f"| misses, {kind} | {_both(found)} |" for kind, found in run["misses_by_type"].items()),
        "",
        "Shares with 95 % confidence intervals (Clopper and Pearson).",
        "",
    ]
    return lines


def _whose(fit: dict[str, Any]) -> str:
    return ": those of the validation images, in the place of leave-one-out ones" if "n_validation" in fit else ""


def _both(found: dict[str, Any]) -> str:
    return f"{_with_interval(found['by_score'])} | {_with_interval(found['by_verdict'])}"


def _pictures(plots: Sequence[str]) -> list[str]:
    return [line for plot in plots for line in (f"![{plot.removesuffix('.png')}]({plot})", "")]


def versions() -> dict[str, str]:
    """Return the versions of the project and of the packages that figures depend on."""
    versions = {"patchcore-gateway": importlib.metadata.version("patchcore-gateway")}
    commit = _commit()
    if commit is not None:
        versions["commit"] = commit
    versions["python"] = platform.python_version()
    for package in _PACKAGES:
        try:
            versions[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            continue
    return versions


def _commit() -> str | None:
    command = ["git", "describe", "--always", "--dirty", "--abbrev=10"]
    try:
        done = subprocess.run(command, cwd=HOME, capture_output=True, text=True)
    except OSError:
        return None
    return done.stdout.strip() or None if done.returncode == 0 else None
