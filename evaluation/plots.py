"""Pictures of an evaluation: histogram, ROC, and galleries of errors."""

from collections.abc import Sequence
from pathlib import Path

import cv2
import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from numpy.typing import NDArray
from sklearn.metrics import roc_curve

from evaluation.data import GOOD
from evaluation.evaluate import Run
from evaluation.inspection import Inspector, Judged
from gateway.images.decoding import Limits, decode, read_header
from postprocess.anomaly_map import score_in_words
from postprocess.heatmap import overlay

_OK, _NG = "#4878a8", "#d1605e"
_COLUMNS = 4
_NO_LIMITS = Limits(2**62, 2**62)


def draw_histogram(run: Run, path: Path) -> None:
    """Draw the scores of OK and NG images, stacked by type of defect, with the calibrated threshold."""
    figure = Figure(figsize=(8, 5.5), layout="constrained")
    above, below = figure.subplots(2, sharex=True)
    kinds = list(run.misses_by_type)
    scores = [np.array([j.score for j in run.judged if j.sample.kind == kind]) for kind in (GOOD, *kinds)]
    every = np.concatenate(scores)
    middle = float(every.mean())
    low, high = (float(every.min()), float(every.max())) if np.ptp(every) > 0 else (middle - 0.5, middle + 0.5)
    edges = np.linspace(low, high, 36).tolist()
    colours = mpl.colormaps["Set2"](np.arange(len(kinds)) % 8)
    labels = [f"{kind} ({len(own)})" for kind, own in zip((GOOD, *kinds), scores, strict=True)]
    above.hist(scores[0], edges, color=_OK, label=labels[0])
    below.hist(scores[1:], edges, stacked=True, color=list(colours), label=labels[1:])
    threshold = run.calibration.threshold
    for axes, kind in ((above, "good"), (below, "bad")):
        axes.axvline(threshold, color="black", linestyle="--", label=f"threshold {threshold:.3f}")
        axes.set_ylabel(f"{kind} images")
        axes.yaxis.set_major_locator(MaxNLocator(integer=True))
        axes.legend(fontsize="small", loc="upper right")
    below.set_xlabel(f"score ({score_in_words(run.rule, run.calibration.score_percentile)} of the anomaly map)")
    above.set_title(f"{run.data}, {run.detector}: scores of {len(run.judged)} unseen images")
    figure.savefig(path, dpi=110)


def draw_roc(run: Run, path: Path) -> None:
    """Draw the ROC of the score, with the calibrated threshold as a point and each type of defect as a thin line."""
    figure = Figure(figsize=(5.5, 5.5), layout="constrained")
    axes = figure.subplots()
    good = [j.score for j in run.judged if not j.sample.is_ng]
    for kind in run.misses_by_type:
        own = [j.score for j in run.judged if j.sample.kind == kind]
        fpr, tpr, _ = roc_curve([0] * len(good) + [1] * len(own), good + own)
        axes.plot(fpr, tpr, linewidth=1, alpha=0.6, label=f"{kind} ({len(own)})")
    fpr, tpr, _ = roc_curve([j.sample.is_ng for j in run.judged], [j.score for j in run.judged])
    axes.plot(fpr, tpr, color="black", linewidth=2, label=f"all, AUROC {run.image.auroc:.3f}")
    for name, false_alarms, misses, marker in (
        ("score", run.false_alarms.by_score, run.misses.by_score, "o"),
        ("verdict", run.false_alarms.by_verdict, run.misses.by_verdict, "X"),
    ):
        x, y = false_alarms.share, 1 - misses.share
        axes.plot(x, y, marker, color=_NG, markersize=9, clip_on=False, label=f"calibrated, by {name}")
    _finish_roc(figure, axes, f"{run.data}, {run.detector}: ROC", path)


def draw_rocs(runs: Sequence[Run], path: Path) -> None:
    """Draw the ROC of each detector on the same images, with each verdict as a point."""
    figure = Figure(figsize=(5.5, 5.5), layout="constrained")
    axes = figure.subplots()
    for run, colour in zip(runs, mpl.colormaps["Dark2"].colors, strict=False):  # type: ignore[attr-defined]
        fpr, tpr, _ = roc_curve([j.sample.is_ng for j in run.judged], [j.score for j in run.judged])
        axes.plot(fpr, tpr, color=colour, linewidth=2, label=f"{run.detector}, AUROC {run.image.auroc:.3f}")
        x, y = run.false_alarms.by_verdict.share, 1 - run.misses.by_verdict.share
        axes.plot(x, y, "X", color=colour, markersize=9, clip_on=False, label="  calibrated, by verdict")
    _finish_roc(figure, axes, f"{runs[0].data}: ROC by detector", path)


def _finish_roc(figure: Figure, axes: Axes, title: str, path: Path) -> None:
    axes.plot([0, 1], [0, 1], color="grey", linewidth=0.8, linestyle=":")
    axes.set(xlabel="share of good images rejected", ylabel="share of bad images rejected", xlim=(0, 1), ylim=(0, 1.01))
    axes.set_aspect("equal")
    axes.set_title(title)
    axes.legend(fontsize="small", loc="lower right")
    figure.savefig(path, dpi=110)


async def draw_gallery(
    inspector: Inspector, run: Run, judged: Sequence[Judged], title: str, path: Path, n: int = 8
) -> None:
    """Draw the first images beside their overlays; regions are white, drawn defects are outlined in magenta.

    Args:
        inspector: with the memory bank of the run.
        run: the run of the images.
        judged: images, worst first.
        title: title of the picture.
        path: PNG file to write.
        n: largest number of images.
    """
    shown = list(judged[:n])
    columns = min(_COLUMNS, max(2, len(shown)))
    rows = max(1, -(-len(shown) // columns))
    figure = Figure(figsize=(3.6 * columns, 2.9 * rows + 0.9), layout="constrained")
    count = f"{len(shown)} of {len(judged)}" if len(judged) > n else str(len(judged))
    cold, hot = _scale(run)
    figure.suptitle(
        f"{title}: {count}\ncolours from {cold:.2f} to {hot:.2f}, green at the threshold; regions white, truth magenta",
        fontsize=11,
    )
    grid = figure.subplots(rows, columns, squeeze=False).ravel()
    for axes in grid:
        axes.axis("off")
    for axes, j in zip(grid, shown, strict=False):
        image = read_rgb(j.sample.path)
        heat = await inspector.map_of(j.sample)
        draw_pair(axes, image, heat, (cold, hot), j)
    figure.savefig(path, dpi=100)


def _scale(run: Run) -> tuple[float, float]:
    """Return the distances of the coldest and the hottest colour, around the threshold of the regions.

    On the scale of a served heatmap, from 0 to the distance of unrelated tokens, all OK images look alike.
    """
    return 0.5 * run.calibration.pixel_threshold, 1.5 * run.calibration.pixel_threshold


def draw_pair(
    axes: Axes, image: NDArray[np.uint8], heat: NDArray[np.float32], scale: tuple[float, float], j: Judged
) -> None:
    """Draw an image and, to its right, the same image with overlay, regions and drawn defect.

    Args:
        axes: axes to draw on.
        image: uint8 [H, W, 3] RGB.
        heat: float32 [H, W].
        scale: distances of the coldest and the hottest colour.
        j: the judged image.
    """
    cold, hot = scale
    levels = np.rint(np.clip((heat - cold) / max(hot - cold, 1e-9), 0, 1) * 255).astype(np.uint8)
    over = overlay(image, levels, j.contours)
    truth = j.sample.truth((image.shape[1], image.shape[0]))
    if truth is not None and truth.any():
        outlines, _ = cv2.findContours(truth.view(np.uint8), cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
        cv2.polylines(over, outlines, isClosed=True, color=(255, 0, 255), thickness=1)
    # Side by side or one above the other, by the image's shape.
    axis = 1 if image.shape[0] >= 0.75 * image.shape[1] else 0
    gap = np.full((image.shape[0], 4, 3) if axis == 1 else (4, image.shape[1], 3), 255, np.uint8)
    axes.imshow(np.concatenate([image, gap, over], axis=axis))
    said = f"NG by {j.reason}" if j.is_rejected else "OK"
    axes.set_title(f"{j.sample.kind}/{j.sample.path.stem}\nscore {j.score:.3f}, said {said}", fontsize=8)


def read_rgb(path: Path) -> NDArray[np.uint8]:
    """Read an image as the gateway does, uint8 [H, W, 3]."""
    data = path.read_bytes()
    image = decode(data, path.name, read_header(data, path.name, _NO_LIMITS))
    return image if image.ndim == 3 else np.repeat(image[:, :, None], 3, axis=2)
