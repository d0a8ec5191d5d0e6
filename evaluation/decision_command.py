"""`scripts/evaluate --splits N`: the command line of repeated splits."""

import argparse
import json
from collections.abc import Callable, Sequence
from pathlib import Path

from evaluation.data import DataError, DataSet
from evaluation.decision import Plan, measure
from evaluation.decision_plots import draw_size_curve
from evaluation.decision_report import as_json, heading, section
from evaluation.evaluate import Stage
from evaluation.pasted import defects
from evaluation.pool import Pool
from evaluation.statistic import Statistic, statistic_from
from evaluation.tokens import RememberingEngine
from gateway.errors import EngineUnavailableError
from gateway.images.decoding import Limits
from gateway.networks import TokenEngine
from gateway.process.services import create_services
from gateway.settings import Settings

STATISTICS = ("p99", "top:0.2", "max", "opening:25px", "opening:100px")
SIZES_MM = (0.5, 0.8, 1.2, 1.6, 2.4, 3.5, 5.0)
CONTRASTS = (-0.8, -0.5, -0.25)
NAMES = ("learn", "rate", "statistic", "paste_on", "sizes", "contrasts")


def add_arguments(
    parser: argparse.ArgumentParser, positive: Callable[[str], float], rate: Callable[[str], float]
) -> None:
    """Add the options of repeated splits.

    Args:
        parser: of the command.
        positive: reads a number above 0.
        rate: reads a share between 0 and 1.
    """
    group = parser.add_argument_group(
        "repeated splits", "measure the decision: false alarms against the stated rate, and detection by size"
    )
    group.add_argument("--splits", type=_count, metavar="N", help="number of random splits of the OK images")
    group.add_argument("--learn", nargs="+", type=_count, metavar="N", help="OK images to learn (default: 70 %%)")
    group.add_argument("--rate", nargs="+", type=rate, metavar="RATE", help="false-alarm rates (default: 0.02 0.05)")
    group.add_argument(
        "--statistic",
        nargs="*",
        type=_statistic,
        metavar="NAME",
        help=f"compared with the verdict (default: {' '.join(STATISTICS)}; also opening:1mm2)",
    )
    group.add_argument(
        "--paste-on", type=int, metavar="N", help="OK images that defects are pasted on; 0 for none (default: 24)"
    )
    sizes, contrasts = (" ".join(f"{value:g}" for value in values) for values in (SIZES_MM, CONTRASTS))
    group.add_argument("--sizes", nargs="+", type=positive, metavar="MM", help=f"(default: {sizes})")
    group.add_argument(
        "--contrasts", nargs="+", type=_contrast, metavar="SHARE", help=f"of brightness (default: {contrasts})"
    )


def plan_of(args: argparse.Namespace, data: DataSet) -> Plan:
    """Return what the options ask to measure on a data set."""
    n_ok = len(data.train) + sum(not sample.is_ng for sample in data.test)
    sizes, contrasts = args.sizes or SIZES_MM, args.contrasts or CONTRASTS
    n_pasted = 24 if args.paste_on is None else args.paste_on
    names = STATISTICS if args.statistic is None else ()
    return Plan(
        n_splits=args.splits,
        learn=sorted(args.learn or [round(0.7 * n_ok)]),
        rates=args.rate or [0.02, 0.05],
        statistics=[*map(statistic_from, names), *(args.statistic or ())],
        defects=defects(sorted(sizes), contrasts) if n_pasted else (),
        n_pasted=n_pasted,
        mm_per_px=args.mm_per_px,
        seed=args.split_seed,
    )


async def run(
    args: argparse.Namespace,
    settings: Settings,
    sets: Sequence[DataSet],
    cache: Path,
    stage: Stage,
    engine: TokenEngine | None = None,
) -> Path:
    """Measure every data set, and write `report.md`, `report.json` and the curves into `args.out`.

    Args:
        args: options of the command.
        settings: of the service.
        sets: the data sets.
        cache: folder for tokens; those of pasted images are not stored.
        stage: shows progress.
        engine: engine to use instead of the one in the settings.

    Returns:
        The path of `report.md`.

    Raises:
        DataError: a data set has too few OK images.
        EngineUnavailableError: there is no network.
    """
    remembering = RememberingEngine(engine or create_services(settings).engine, cache)
    await remembering.start()
    if not remembering.status.ready:
        raise EngineUnavailableError(f"no tokens: {remembering.status.reason}", retry_after_s=0)
    out: Path = args.out
    lines = heading(remembering.model, remembering.status.runtime, settings, _as_command(args))
    found = []
    try:
        for number, data in enumerate(sets, start=1):
            plan = plan_of(args, data)
            limits = Limits(settings.max_image_bytes, settings.max_image_pixels)
            with Pool(data, remembering, limits, args.tiles, settings.max_tiles) as pool:
                remembering.remembers = True
                await pool.load(stage(f"{data.name}: tokens", pool.n_images))
                remembering.remembers = False
                try:
                    findings = await measure(pool, plan, settings, stage)
                except ValueError as error:
                    raise DataError(f"{data.name}: {error}") from error
            curve = None
            if plan.defects:
                curve = f"{number}-size-curve.png" if len(sets) > 1 else "size-curve.png"
                draw_size_curve(data.name, findings, plan, out / curve)
            lines += section(data, findings, plan, curve)
            found.append(as_json(data, findings, plan))
    finally:
        await remembering.close()
    (out / "report.json").write_text(json.dumps(found, indent=1, ensure_ascii=False) + "\n")
    (out / "report.md").write_text("\n".join(lines))
    return out / "report.md"


def _as_command(args: argparse.Namespace) -> str:
    """Return the options that decide what is measured, without folders of this machine."""
    shown = [(args.csv or args.folder).resolve().name]
    shown += [] if args.tiles is None else [f"--tiles {args.tiles}"]
    for name in ("splits", *NAMES, "mm_per_px", "split_seed"):
        value = getattr(args, name)
        values = value if isinstance(value, list) else [value]
        texts = [each.name if isinstance(each, Statistic) else f"{each:g}" for each in values if each is not None]
        shown += [f"--{name.replace('_', '-')} {' '.join(texts)}"] if texts else []
    return " ".join(shown)


def _count(text: str) -> int:
    if not text.isdecimal() or int(text) == 0:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number of at least 1")
    return int(text)


def _statistic(text: str) -> Statistic:
    try:
        return statistic_from(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None


def _contrast(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = 0.0
    if not (-1 <= value < 0 or 0 < value <= 10):
        raise argparse.ArgumentTypeError(f"{text!r} is not a relative change of brightness, such as -0.3")
    return value
