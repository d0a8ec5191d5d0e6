"""`scripts/evaluate`: run a data set through the service's own code and write a report."""

import argparse
import asyncio
import itertools
import json
import math
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tqdm import tqdm

from evaluation import decision_command
from evaluation.data import KO_LABELS, DataError, DataSet, read_csv, read_folder
from evaluation.evaluate import Run, evaluate, worst_false_alarms, worst_misses
from evaluation.inspection import Inspector, Progress
from evaluation.local import LocalInspector
from evaluation.models import ExportFailedError, Variant, repository_of
from evaluation.plots import draw_gallery, draw_histogram, draw_roc, draw_rocs
from evaluation.remote import RemoteError, RemoteInspector
from evaluation.report import as_json, as_markdown, plots_of
from evaluation.students import StudentInspector, StudentRecipe, TrainingFailedError
from export.labelled_csv import add_column_arguments, columns_from
from gateway.detectors.spatial_weighting import RoiConfigError
from gateway.errors import GatewayError
from gateway.learning.request import TilesAsked
from gateway.settings import HOME, Settings
from gateway.store.manifest import DetectorKind

_CACHE = HOME / ".cache" / "evaluate"
_N_TIMED = 40
_OF_BANKS = ("coreset_rate", "layers", "input_size", "weights", "tiles", "exclude_suspects")
_OF_ONE_SPLIT = ("layers", "input_size", "p_score", "coreset_rate", "seed", "exclude_suspects", "timings", "test_share")
_OF_STUDENTS = ("teacher", "teacher_layers", "student_size", "epochs")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command: parse, evaluate, write the report.

    Returns:
        The exit status: 0 done, 1 failed, 2 wrong usage, 130 interrupted.
    """
    parser = _parser()
    args = parser.parse_args(arguments)
    if (args.folder is None) == (args.csv is None):
        parser.error("name a folder in MVTec layout or --csv FILE")
    if args.url is not None and (args.layers or args.input_size):
        parser.error(
            "--layers and --input-size need the network in this process; a gateway at --url serves what it has"
        )
    if args.splits is not None and (args.detector != "memory-bank" or args.url is not None):
        parser.error("--splits needs the memory bank in this process, without --detector student-teacher and --url")
    if args.splits is not None and any(getattr(args, name) for name in _OF_ONE_SPLIT):
        parser.error(f"{_as_options(_OF_ONE_SPLIT)} belong to a single split; they do not go with --splits")
    if args.splits is None and any(getattr(args, name) is not None for name in decision_command.NAMES):
        parser.error(f"{_as_options(decision_command.NAMES)} belong to repeated splits; add --splits")
    if args.csv is None and (args.connector is not None or args.test_share is not None):
        parser.error("--connector and --test-share are of a CSV")
    if args.detector == "memory-bank" and any(getattr(args, name) is not None for name in _OF_STUDENTS):
        parser.error("--teacher, --teacher-layers, --student-size and --epochs need --detector student-teacher or both")
    if args.detector == "student-teacher" and any(getattr(args, name) for name in _OF_BANKS):
        parser.error(f"{_as_options(_OF_BANKS)} belong to the memory bank; use --detector memory-bank or both")
    if args.detector != "memory-bank" and args.url is not None:
        parser.error("a student is trained and inspects in this process; it does not go with --url")
    try:
        asyncio.run(_evaluate(args))
    except (DataError, ExportFailedError, RemoteError, RoiConfigError, TrainingFailedError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    except GatewayError as error:
        print(f"error: {error.message}", file=sys.stderr)
        return 1
    except OSError as error:
        print(f"error: {error.filename}: {error.strerror}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("interrupted: no report; trained models and tokens are kept for the next run", file=sys.stderr)
        return 130
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="scripts/evaluate",
        description="Evaluate how well the gateway tells good from bad: fit OK images, inspect others, write a report. "
        "Options that take several values are swept; GATEWAY_* settings hold for everything else.",
    )
    parser.add_argument("folder", nargs="?", type=Path, metavar="DIR", help="data set in MVTec layout")
    parser.add_argument("--csv", type=Path, metavar="FILE", help="columns: image path, connector, label")
    add_column_arguments(parser)
    parser.add_argument(
        "--ko-labels",
        type=lambda text: tuple(text.split(",")),
        default=KO_LABELS,
        metavar="LABEL,…",
        help=f"labels of bad images in the CSV (default: {','.join(KO_LABELS)}); other labels are ignored",
    )
    parser.add_argument("--connector", help="only this connector of the CSV (default: each is one ROI)")
    parser.add_argument("--test-share", type=_share, help="share of a CSV's OK images to inspect (default: 0.3)")
    parser.add_argument("--split-seed", type=_seed, default=0, help="seed of that split")
    parser.add_argument(
        "--out", type=Path, default=Path("evaluation-report"), metavar="DIR", help="(default: %(default)s)"
    )
    parser.add_argument(
        "--detector",
        choices=("memory-bank", "student-teacher", "both"),
        default="memory-bank",
        help="both: side by side, with the cost of each (default: %(default)s)",
    )
    parser.add_argument(
        "--url",
        help="address of a running gateway to use; EVALUATE_API_KEY holds a teach key if it needs one",
    )
    parser.add_argument("--mm-per-px", type=_positive, default=0.2, help="of all images (default: %(default)s)")
    parser.add_argument("--layers", nargs="+", type=_numbers, metavar="BLOCK,…", help="such as 9,11 6,8: other exports")
    parser.add_argument("--input-size", nargs="+", type=int, metavar="PIXELS", help="input sizes of other exports")
    parser.add_argument("--p-score", nargs="+", type=_percentile, metavar="PERCENTILE")
    parser.add_argument("--coreset-rate", nargs="+", type=_rate, metavar="SHARE")
    parser.add_argument("--seed", nargs="+", type=_seed, metavar="N", help="seeds of the coreset or the training")
    parser.add_argument(
        "--tiles",
        type=_tiles,
        metavar="auto|N",
        help="tiles that an image is cut into, at most N (default: auto, as the first fit of an ROI)",
    )
    parser.add_argument("--exclude-suspects", action="store_true", help="fit without suspect OK images")
    parser.add_argument(
        "--weights",
        metavar="hub|FILE|seed:N",
        help="weights for other exports, equal to those of the served model (default: DINOV2_WEIGHTS)",
    )
    parser.add_argument(
        "--timings",
        action="store_true",
        help="also time fits and inspections, without cached tokens (always on with a student)",
    )
    decision_command.add_arguments(parser, _positive, _rate)
    student = parser.add_argument_group("student-teacher", "see python -m export student-teacher --help")
    student.add_argument(
        "--teacher",
        metavar="hub|FILE|seed:N",
        help="weights of the ResNet18 that a student learns from (default: RESNET18_WEIGHTS, else the hub)",
    )
    student.add_argument("--teacher-layers", metavar="LAYER,…", help="such as layer1,layer2,layer3")
    student.add_argument("--student-size", type=int, metavar="PIXELS")
    student.add_argument("--epochs", type=int, help="largest number of epochs")
    return parser


async def _evaluate(args: argparse.Namespace) -> None:
    sets = [read_folder(args.folder)] if args.csv is None else _from_csv(args)
    args.out.mkdir(parents=True, exist_ok=True)
    if args.splits is not None:
        with _progress() as stage:
            print(await decision_command.run(args, Settings(), sets, _CACHE / "tokens", stage))
        return
    runs: list[Run] = []
    plots: dict[str, list[str]] = {}
    maps = ""
    prefixes = {
        data.name: f"{number}-{_as_file_name(data.name)}" if len(sets) > 1 else _as_file_name(data.name)
        for number, data in enumerate(sets, start=1)
    }
    # The student comes first, so that a wrong option fails at once.
    detectors: list[DetectorKind] = ["student-teacher", "memory-bank"] if args.detector == "both" else [args.detector]
    is_timed = args.timings or args.detector != "memory-bank"
    with _progress() as stage:
        for detector, variant in _entries(args, detectors):
            inspector = await _inspector(args, detector, variant)
            maps = inspector.maps
            try:
                for data in sets:

                    async def draw(run: Run, own: Inspector = inspector) -> None:
                        name = plots_of(run.data, run.detector)
                        if name not in plots:
                            prefix = prefixes[run.data] + (f"-{run.detector}" if len(detectors) > 1 else "")
                            plots[name] = await _draw(own, run, args.out, prefix)
                        runs.append(run)

                    await evaluate(
                        inspector,
                        data,
                        coreset_rates=(detector == "memory-bank" and args.coreset_rate) or (None,),
                        seeds=args.seed or (None,),
                        p_scores=args.p_score or (None,),
                        exclude_suspects=args.exclude_suspects,
                        tiles=args.tiles,
                        n_timed=_N_TIMED if is_timed else 0,
                        stage=stage,
                        on_run=draw,
                    )
            finally:
                await inspector.close()
    runs.sort(key=lambda run: run.detector)  # A stable sort keeps the order of equal ones.
    if len(detectors) > 1:
        for data in sets:
            rivals = [
                next(run for run in runs if (run.data, run.detector) == (data.name, each)) for each in sorted(detectors)
            ]
            picture = f"{prefixes[data.name]}-roc-by-detector.png"
            draw_rocs(rivals, args.out / picture)
            plots[plots_of(data.name)] = [picture]
    report = as_json(runs, sets, _options(args), plots, maps)
    (args.out / "report.json").write_text(json.dumps(report, indent=1, ensure_ascii=False) + "\n")
    (args.out / "report.md").write_text(as_markdown(report))
    print(args.out / "report.md")


def _entries(args: argparse.Namespace, detectors: Sequence[DetectorKind]) -> Iterator[tuple[DetectorKind, Variant]]:
    """Yield the runs in order: the memory bank on each export, and a student once."""
    for detector in detectors:
        if detector == "student-teacher":
            yield detector, Variant()
        else:
            for layers, size in itertools.product(args.layers or (None,), args.input_size or (None,)):
                yield detector, Variant(layers, size)


def _from_csv(args: argparse.Namespace) -> list[DataSet]:
    return read_csv(
        args.csv,
        args.ko_labels,
        connector=args.connector,
        test_share=args.test_share or 0.3,
        seed=args.split_seed,
        columns=columns_from(args),
    )


async def _inspector(
    args: argparse.Namespace, detector: DetectorKind, variant: Variant
) -> LocalInspector | RemoteInspector:
    if args.url is not None:
        key = os.environ.get("EVALUATE_API_KEY", "").strip() or None
        if key is not None and not key.isascii():
            raise RemoteError("EVALUATE_API_KEY is not an API key: `python -m gateway key` makes one")
        remote = RemoteInspector(args.url, args.mm_per_px, key=key)
        await remote.start()
        return remote
    settings = Settings()
    if detector == "student-teacher":
        if settings.engine != "embedded":
            raise TrainingFailedError("a student needs GATEWAY_ENGINE=embedded here")
        recipe = StudentRecipe(_teacher(args), args.teacher_layers, args.student_size, args.epochs)
        return StudentInspector(settings, args.mm_per_px, _CACHE, recipe)
    if settings.engine == "embedded":
        repository = repository_of(variant, settings, args.weights or os.environ.get("DINOV2_WEIGHTS") or None, _CACHE)
        settings = settings.model_copy(update={"model_repository": repository})
    elif variant != Variant():
        raise ExportFailedError("--layers and --input-size need GATEWAY_ENGINE=embedded")
    timings = args.timings or args.detector == "both"
    local = LocalInspector(settings, args.mm_per_px, _CACHE / "tokens", timings=timings)
    await local.start()
    return local


def _teacher(args: argparse.Namespace) -> str | None:
    given: str | None = args.teacher or os.environ.get("RESNET18_WEIGHTS") or None
    if given is None or given == "hub" or given.startswith("seed:"):
        return given
    return str(Path(given).resolve())  # absolute, because the training runs in another folder


async def _draw(inspector: Inspector, run: Run, out: Path, prefix: str) -> list[str]:
    names = {part: f"{prefix}-{part}.png" for part in ("histogram", "roc", "misses", "false-alarms")}
    draw_histogram(run, out / names["histogram"])
    draw_roc(run, out / names["roc"])
    for part, judged, title in (
        ("misses", worst_misses(run), f"{run.data}, {run.detector}: missed NG images, lowest score first"),
        (
            "false-alarms",
            worst_false_alarms(run),
            f"{run.data}, {run.detector}: false alarms, highest score first",
        ),
    ):
        (out / names[part]).unlink(missing_ok=True)
        if judged:
            await draw_gallery(inspector, run, judged, title, out / names[part])
        else:
            del names[part]
    return list(names.values())


@contextmanager
def _progress() -> Iterator[Any]:
    bars: list[Any] = []

    def stage(label: str, total: int) -> Progress:
        if bars:
            bars.pop().close()
        bar = tqdm(total=total, desc=label, unit="image", file=sys.stderr)
        bars.append(bar)

        def advance(n: int) -> None:
            bar.update(n)

        return advance

    try:
        yield stage
    finally:
        for bar in bars:
            bar.close()


def _options(args: argparse.Namespace) -> dict[str, Any]:
    """Return the command as given, without folders of this machine."""
    shown: dict[str, Any] = {"source": (args.csv or args.folder).resolve().name}
    names = ["detector", "layers", "input_size", "coreset_rate", "seed", "p_score", "tiles"]
    names += ["exclude_suspects", "mm_per_px"]
    names += ["ko_labels", "connector", "test_share", "split_seed"] if args.csv is not None else []
    names += ["teacher_layers", "student_size", "epochs"] if args.detector != "memory-bank" else []
    for name in names:
        value = getattr(args, name)
        if isinstance(value, list):
            value = [",".join(map(str, v)) if isinstance(v, tuple) else v for v in value]
        shown[name] = list(value) if isinstance(value, tuple) else value
    return shown


def _as_options(names: Sequence[str]) -> str:
    return ", ".join(f"--{name.replace('_', '-')}" for name in names)


def _as_file_name(name: str) -> str:
    return "".join(c if c.isalnum() or c in "-_" else "_" for c in name)


def _numbers(text: str) -> tuple[int, ...]:
    try:
        return tuple(int(part) for part in text.split(","))
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is not a list of whole numbers separated by commas") from None


def _number(text: str, is_valid: Callable[[float], bool], expected: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not is_valid(value):
        raise argparse.ArgumentTypeError(f"{text!r} is not {expected}")
    return value


def _seed(text: str) -> int:
    if not text.isdecimal():
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number of at least 0")
    return int(text)


def _tiles(text: str) -> TilesAsked:
    if text == "auto":
        return "auto"
    if not text.isdecimal() or int(text) == 0:
        raise argparse.ArgumentTypeError(f"{text!r} is neither auto nor a whole number of at least 1")
    return int(text)


def _share(text: str) -> float:
    return _number(text, lambda value: 0 < value < 1, "between 0 and 1")


def _rate(text: str) -> float:
    return _number(text, lambda value: 0 < value <= 1, "above 0 and at most 1")


def _percentile(text: str) -> float:
    return _number(text, lambda value: 95 <= value <= 100, "a percentile from 95 to 100, the range of the gateway")


def _positive(text: str) -> float:
    return _number(text, lambda value: 0 < value < math.inf, "a number above 0")


if __name__ == "__main__":
    sys.exit(main())
