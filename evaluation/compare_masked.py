"""`scripts/compare_masked`: compare the maps of an OK and an NG image without and with the ROI's spatial weights."""

import argparse
import asyncio
import os
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from anyio import to_thread
from matplotlib.figure import Figure
from numpy.typing import NDArray

from evaluation.data import KO_LABELS, DataError, read_rows
from evaluation.plots import read_rgb
from gateway.detectors.spatial_weighting import RoiConfigError
from gateway.errors import EngineUnavailableError, GatewayError
from gateway.images.masks import mask_of
from gateway.inspection.pipeline import require_same_model
from gateway.inspection.version_cache import FittedRoi
from gateway.networks import TokenEngine
from gateway.networks.model_tiling import tiling_of
from gateway.networks.registry import EngineRegistry
from gateway.process.services import create_services
from gateway.settings import Settings
from gateway.store.roi_key import DEFAULT_RECIPE, RoiKey
from postprocess.anomaly_map import ScoreRule, score_in_words, scored_map
from postprocess.roi_mask import Shape, ShapeError, parse_shape

_SIZE = (13, 7.5)


@dataclass(frozen=True, slots=True, eq=False)
class Compared:
    """One image, without and with the spatial weights."""

    image: NDArray[np.uint8]
    """uint8 [H, W, 3] RGB."""
    raw: NDArray[np.float32]
    """float32 [H, W], the anomaly map without weights, before the blur."""
    masked: NDArray[np.float32]
    """float32 [H, W], the map with weights, which the service scores."""
    raw_score: float
    masked_score: float


@dataclass(frozen=True, slots=True, eq=False)
class Comparison:
    """Both images and the settings of the comparison."""

    key: RoiKey
    ok: Compared
    ko: Compared
    weights: tuple[float, float] | None
    """Smallest and largest spatial weight; None for an ROI without weights."""
    kind: str
    """Kind of the spatial weights."""
    rule: ScoreRule
    p_score: float
    threshold: float | None


async def compare(
    settings: Settings,
    key: RoiKey,
    ok: Path,
    ko: Path,
    *,
    p_score: float | None = None,
    shape: Shape | None = None,
    engine: TokenEngine | None = None,
) -> Comparison:
    """Compare two images with the version in use of an ROI, by its own rules.

    Args:
        settings: name the models folder and the engine.
        key: a fitted ROI.
        ok: an OK image.
        ko: an NG image.
        p_score: percentile of the score; None takes the calibration's, or the setting without one.
        shape: the part within which the score is taken.
        engine: token engine to use instead of the one in the settings.

    Raises:
        GatewayError: the ROI is unknown, its version has another model, or an image is unreadable.
    """
    services = create_services(settings)
    engines = services.engines if engine is None else EngineRegistry(engine, settings)
    try:
        roi = await services.banks.get(key)
        if roi.loaded.manifest.is_taught:  # a student has a network of its own
            await engines.token_engine.start()
        used = await roi.loaded.detector.engine(engines)
        if not used.status.ready:
            raise EngineUnavailableError(f"no tokens: {used.status.reason}", retry_after_s=0)
        model = used.model
        require_same_model(roi.loaded, model)
        calibration = roi.calibration
        if p_score is None:
            p_score = settings.p_score if calibration is None else calibration.score_percentile
        tiling = tiling_of(roi.loaded.manifest, model)
        images = [read_rgb(path) for path in (ok, ko)]
        tiles = np.concatenate([tiling.cut(tiling.resized(image)) for image in images])
        tokens = map(tiling.stitched, np.split(await used.tokens(tiles, model=model), len(images)))

        def both() -> list[Compared]:
            pairs = zip(images, tokens, strict=True)
            return [_compared(roi, image, own, p_score, shape) for image, own in pairs]

        first, second = await to_thread.run_sync(both)
    finally:
        await engines.close()
    weights = roi.loaded.weights
    return Comparison(
        key=key,
        ok=first,
        ko=second,
        weights=None if weights is None else (float(weights.min()), float(weights.max())),
        kind=roi.loaded.manifest.spatial_weights.kind,
        rule=roi.loaded.manifest.score_rule,
        p_score=p_score,
        threshold=None if calibration is None else calibration.threshold,
    )


def _compared(
    roi: FittedRoi, image: NDArray[np.uint8], tokens: NDArray[np.float32], p_score: float, shape: Shape | None
) -> Compared:
    size_wh = image.shape[1], image.shape[0]
    mask = None if shape is None else mask_of(shape, size_wh)
    detector, token_hw = roi.loaded.detector, roi.loaded.manifest.token_hw
    distances = detector.distances(tokens, detector.neighbours(None)[0])
    rule = roi.loaded.manifest.score_rule
    raw, masked = (
        scored_map(distances, token_hw, size_wh, weights=weights, rule=rule, percentile=p_score, mask=mask)
        for weights in (None, roi.loaded.weights)
    )
    return Compared(image, raw[0], masked[0], raw[1], masked[1])


def normalised(values: NDArray[np.float32]) -> NDArray[np.float32]:
    """Scale values to 0 to 1; equal values become 0.

    Example:
        >>> normalised(np.array([2, 3, 4], np.float32))
        array([0. , 0.5, 1. ], dtype=float32)
    """
    low, high = values.min(), values.max()
    if low == high:
        return np.zeros_like(values)
    return np.asarray((values - low) / (high - low), np.float32)


def draw(comparison: Comparison, figure: Figure) -> None:
    """Draw two rows, OK and NG, of image, raw map and masked map, each normalised to [0, 1]."""
    figure.set_layout_engine("constrained")
    grid = figure.subplots(2, 3)
    picture = None
    for row, (name, own) in enumerate((("OK", comparison.ok), ("KO", comparison.ko))):
        shown = own.image.astype(np.float32)
        grid[row, 0].imshow(normalised(shown))
        grid[row, 0].set_ylabel(name, fontsize=14, fontweight="bold")
        height, width = own.image.shape[:2]
        grid[row, 0].set_title(f"image\n{width} × {height}", fontsize=10)
        for column, (title, values, value) in enumerate(
            (("raw map", own.raw, own.raw_score), ("masked map", own.masked, own.masked_score)), start=1
        ):
            axes = grid[row, column]
            picture = axes.imshow(normalised(values), cmap="turbo", vmin=0, vmax=1)
            axes.set_title(f"{title}: score {value:.3f}\nfrom {values.min():.3f} to {values.max():.3f}", fontsize=10)
    for axes in grid.ravel():
        axes.set_xticks([])
        axes.set_yticks([])
    assert picture is not None
    figure.colorbar(
        picture, ax=grid, label="each map from its smallest (0) to its largest (1)", shrink=0.8, panchor=False
    )
    if comparison.weights is None:
        said = "no spatial weights: raw and masked are the same"
    else:
        said = f"spatial weights ({comparison.kind}) {comparison.weights[0]:g} to {comparison.weights[1]:g}"
    score = score_in_words(comparison.rule, comparison.p_score)
    threshold = "not calibrated" if comparison.threshold is None else f"threshold {comparison.threshold:.3f}"
    figure.suptitle(f"{comparison.key}: {said}\nscore: {score}, {threshold}")


def in_words(comparison: Comparison) -> str:
    """Return the numbers of the comparison as text."""
    if comparison.weights is None:
        weights = "none: fit with a manual box or spatial_weights=variance for any"
    else:
        weights = f"min {comparison.weights[0]:g}, max {comparison.weights[1]:g} ({comparison.kind})"
    lines = [f"ROI      {comparison.key}", f"weights  {weights}"]
    if comparison.threshold is not None:
        lines.append(f"threshold {comparison.threshold:.4f}, of the masked score")
    for name, own in (("OK", comparison.ok), ("KO", comparison.ko)):
        lines.append(f"{name}       raw score {own.raw_score:.4f}, masked score {own.masked_score:.4f}")
    return "\n".join(lines)


def first_of(file: Path, roi: str, ko_labels: Sequence[str]) -> tuple[Path, Path]:
    """Return the first OK and the first KO image of a connector.

    Raises:
        DataError: one of them is missing.
    """
    rows = [row for row in read_rows(file, ko_labels, need_images=False) if row.connector == roi]
    found = []
    for is_ok in (True, False):
        paths = [row.path for row in rows if row.is_ok is is_ok]
        if not paths:
            raise DataError(f"{file}: no {'OK' if is_ok else 'KO'} image of connector {roi!r}")
        if not paths[0].is_file():
            raise DataError(f"{file}: {paths[0]} does not exist")
        found.append(paths[0])
    return found[0], found[1]


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command: parse, compare, draw.

    Returns:
        The exit status: 0 done, 1 failed, 2 wrong usage.
    """
    parser = _parser()
    args = parser.parse_args(arguments)
    if (args.csv is None) == (args.ok is None and args.ko is None) or (args.ok is None) != (args.ko is None):
        parser.error("name --ok IMG and --ko IMG, or --csv FILE")
    try:
        key = RoiKey(args.role, args.roi, args.recipe)
        ok, ko = (args.ok, args.ko) if args.csv is None else first_of(args.csv, args.roi, args.ko_labels)
        shape = None if args.shape is None else parse_shape(args.shape)[0]
        comparison = asyncio.run(compare(Settings(), key, ok, ko, p_score=args.p_score, shape=shape))
    except GatewayError as error:
        print(f"error: {error.message}", file=sys.stderr)
        return 1
    except (DataError, RoiConfigError, ShapeError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    print(f"OK image {ok}\nKO image {ko}\n{in_words(comparison)}")
    show(comparison, args.out, on_screen=not args.no_show)
    print(f"figure   {args.out}")
    return 0


def show(comparison: Comparison, out: Path, *, on_screen: bool) -> None:
    """Write the figure, and show it if there is a screen."""
    out.parent.mkdir(parents=True, exist_ok=True)
    if not (on_screen and _has_screen()):
        figure = Figure(figsize=_SIZE)
        draw(comparison, figure)
        figure.savefig(out, dpi=100)
        return
    from matplotlib import pyplot as plt  # needs a window system

    figure = plt.figure(figsize=_SIZE)
    draw(comparison, figure)
    figure.savefig(out, dpi=100)
    if plt.get_backend().lower() != "agg":
        plt.show()


def _has_screen() -> bool:
    return sys.platform in ("darwin", "win32") or any(os.environ.get(v) for v in ("DISPLAY", "WAYLAND_DISPLAY"))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="scripts/compare_masked",
        description="Compare an OK and a KO image without and with the spatial weights of an ROI. GATEWAY_MODELS_DIR "
        "names the memory banks.",
    )
    parser.add_argument("--role", required=True)
    parser.add_argument("--recipe", default=DEFAULT_RECIPE, help="(default: %(default)s)")
    parser.add_argument("--roi", required=True, help="ROI, and connector in the CSV")
    parser.add_argument("--ok", type=Path, metavar="IMG")
    parser.add_argument("--ko", type=Path, metavar="IMG")
    parser.add_argument(
        "--csv", type=Path, metavar="FILE", help="columns image path, connector, label: the first OK and KO of the ROI"
    )
    parser.add_argument(
        "--ko-labels",
        type=lambda text: tuple(text.split(",")),
        default=KO_LABELS,
        metavar="LABEL,…",
        help=f"labels of KO images in the CSV (default: {','.join(KO_LABELS)}); occlusion labels are ignored",
    )
    parser.add_argument("--p-score", type=float, help="percentile (default: the calibration's, else GATEWAY_P_SCORE)")
    parser.add_argument("--shape", metavar="JSON", help="shape of the part, as in /infer")
    parser.add_argument("--out", type=Path, default=Path("compare_masked.png"), help="(default: %(default)s)")
    parser.add_argument("--no-show", action="store_true", help="write the figure only")
    return parser


if __name__ == "__main__":
    sys.exit(main())
