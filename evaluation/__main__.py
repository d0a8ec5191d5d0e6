"""`scripts/evaluate`: a data set through the service's own code, and a report."""

import argparse
import asyncio
import json
import math
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tqdm import tqdm

from evaluation.data import KO_LABELS, DataError, DataSet, read_csv, read_folder
from evaluation.evaluate import Run, evaluate, worst_false_alarms, worst_misses
from evaluation.inspection import Inspector, Progress
from evaluation.local import LocalInspector
from evaluation.models import ExportFailedError, Variant, repository_of
from evaluation.plots import draw_gallery, draw_histogram, draw_roc
from evaluation.remote import RemoteError, RemoteInspector
from evaluation.report import as_json, as_markdown
from gateway.errors import GatewayError
from gateway.settings import HOME, Settings
from gateway.spatial import RoiConfigError

_CACHE = HOME / ".cache" / "evaluate"


def main(arguments: Sequence[str] | None = None) -> int:
    """Parse, evaluate, write.

    Returns:
        The exit status: 0 done, 1 failed, 2 wrong usage.
    """
    parser = _parser()
    args = parser.parse_args(arguments)
    if (args.folder is None) == (args.csv is None):
        parser.error("name a folder in MVTec layout or --csv FILE")
    if args.url is not None and (args.layers or args.input_size):
        parser.error(
            "--layers and --input-size need the network in this process; a gateway at --url serves what it has"
        )
    try:
        asyncio.run(_evaluate(args))
    except (DataError, ExportFailedError, RemoteError, RoiConfigError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    except GatewayError as error:
        print(f"error: {error.message}", file=sys.stderr)
        return 1
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="scripts/evaluate",
        description="How well the gateway tells good from bad: fits OK images, inspects others, writes a report. "
        "Options that take several values are swept; GATEWAY_* settings hold for everything else.",
    )
    parser.add_argument("folder", nargs="?", type=Path, metavar="DIR", help="data set in MVTec layout")
    parser.add_argument("--csv", type=Path, metavar="FILE", help="columns image path, connector, label; OK = `OK`")
    parser.add_argument(
        "--ko-labels",
        type=lambda text: tuple(text.split(",")),
        default=KO_LABELS,
        metavar="LABEL,…",
        help=f"of bad images in the CSV (default: {','.join(KO_LABELS)}); other labels are left out",
    )
    parser.add_argument("--connector", help="only this one of the CSV (default: each is an ROI of its own)")
    parser.add_argument("--test-share", type=_share, default=0.3, help="of a CSV's OK images, inspected not learned")
    parser.add_argument("--split-seed", type=int, default=0, help="of that split")
    parser.add_argument(
        "--out", type=Path, default=Path("evaluation-report"), metavar="DIR", help="(default: %(default)s)"
    )
    parser.add_argument("--url", help="of a running gateway, instead of in this process")
    parser.add_argument("--mm-per-px", type=_positive, default=0.2, help="of all images (default: %(default)s)")
    parser.add_argument("--layers", nargs="+", type=_numbers, metavar="BLOCK,…", help="such as 9,11 6,8: other exports")
    parser.add_argument("--input-size", nargs="+", type=int, metavar="PIXELS", help="other exports")
    parser.add_argument("--p-score", nargs="+", type=_percentile, metavar="PERCENTILE")
    parser.add_argument("--coreset-rate", nargs="+", type=_rate, metavar="SHARE")
    parser.add_argument("--seed", nargs="+", type=int, metavar="N")
    parser.add_argument("--exclude-suspects", action="store_true", help="fit without the OK images that stand out")
    parser.add_argument(
        "--weights",
        default=os.environ.get("DINOV2_WEIGHTS") or None,
        metavar="hub|FILE|seed:N",
        help="for other exports; those of the model served (default: DINOV2_WEIGHTS)",
    )
    return parser


async def _evaluate(args: argparse.Namespace) -> None:
    sets = [read_folder(args.folder)] if args.csv is None else _from_csv(args)
    args.out.mkdir(parents=True, exist_ok=True)
    runs: list[Run] = []
    plots: dict[str, list[str]] = {}
    maps = ""
    variants = [Variant(layers, size) for layers in args.layers or (None,) for size in args.input_size or (None,)]
    with _progress() as stage:
        for variant in variants:
            inspector = await _inspector(args, variant)
            maps = inspector.maps
            try:
                for data in sets:

                    async def draw(run: Run, own: Inspector = inspector) -> None:
                        if run.data not in plots:
                            number = f"{len(plots) + 1}-" if len(sets) > 1 else ""
                            plots[run.data] = await _draw(own, run, args.out, f"{number}{_as_file_name(run.data)}")
                        runs.append(run)

                    await evaluate(
                        inspector,
                        data,
                        coreset_rates=args.coreset_rate or (None,),
                        seeds=args.seed or (None,),
                        p_scores=args.p_score or (None,),
                        exclude_suspects=args.exclude_suspects,
                        stage=stage,
                        on_run=draw,
                    )
            finally:
                await inspector.close()
    report = as_json(runs, sets, _options(args), plots, maps)
    (args.out / "report.json").write_text(json.dumps(report, indent=1, ensure_ascii=False) + "\n")
    (args.out / "report.md").write_text(as_markdown(report))
    print(args.out / "report.md")


def _from_csv(args: argparse.Namespace) -> list[DataSet]:
    return read_csv(
        args.csv, args.ko_labels, connector=args.connector, test_share=args.test_share, seed=args.split_seed
    )


async def _inspector(args: argparse.Namespace, variant: Variant) -> LocalInspector | RemoteInspector:
    if args.url is not None:
        remote = RemoteInspector(args.url, args.mm_per_px)
        await remote.start()
        return remote
    settings = Settings()
    if settings.engine == "embedded":
        repository = repository_of(variant, settings, args.weights, _CACHE)
        settings = settings.model_copy(update={"model_repository": repository})
    elif variant != Variant():
        raise ExportFailedError("--layers and --input-size need GATEWAY_ENGINE=embedded")
    local = LocalInspector(settings, args.mm_per_px, _CACHE / "tokens")
    await local.start()
    return local


async def _draw(inspector: Inspector, run: Run, out: Path, prefix: str) -> list[str]:
    names = {part: f"{prefix}-{part}.png" for part in ("histogram", "roc", "misses", "false-alarms")}
    draw_histogram(run, out / names["histogram"])
    draw_roc(run, out / names["roc"])
    for part, judged, title in (
        ("misses", worst_misses(run), f"{run.data}: bad images said to be OK, lowest score first"),
        ("false-alarms", worst_false_alarms(run), f"{run.data}: good images said to be NG, highest score first"),
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
    """As given, without this machine's folders."""
    shown: dict[str, Any] = {"source": (args.csv or args.folder).resolve().name}
    names = ["layers", "input_size", "coreset_rate", "seed", "p_score", "exclude_suspects", "mm_per_px"]
    names += ["ko_labels", "connector", "test_share", "split_seed"] if args.csv is not None else []
    for name in names:
        value = getattr(args, name)
        if isinstance(value, list):
            value = [",".join(map(str, v)) if isinstance(v, tuple) else v for v in value]
        shown[name] = list(value) if isinstance(value, tuple) else value
    return shown


def _as_file_name(name: str) -> str:
    return "".join(c if c.isalnum() or c in "-_" else "_" for c in name)


def _numbers(text: str) -> tuple[int, ...]:
    try:
        return tuple(int(part) for part in text.split(","))
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is not whole numbers with commas between them") from None


def _number(text: str, is_valid: Callable[[float], bool], expected: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not is_valid(value):
        raise argparse.ArgumentTypeError(f"{text!r} is not {expected}")
    return value


def _share(text: str) -> float:
    return _number(text, lambda value: 0 < value < 1, "between 0 and 1")


def _rate(text: str) -> float:
    return _number(text, lambda value: 0 < value <= 1, "above 0 and at most 1")


def _percentile(text: str) -> float:
    return _number(text, lambda value: 95 <= value <= 100, "a percentile from 95 to 100, as the gateway takes them")


def _positive(text: str) -> float:
    return _number(text, lambda value: 0 < value < math.inf, "a number above 0")


if __name__ == "__main__":
    sys.exit(main())
