"""Draw the share of pasted defects that is rejected, by size."""

from collections.abc import Sequence
from pathlib import Path

import matplotlib as mpl
from matplotlib.figure import Figure

from evaluation.decision import Findings, Plan
from evaluation.pasted import FORMS, LINE_WIDTH_MM, Defect, Form

_TITLES: dict[Form, str] = {
    "disc": "disc, by diameter",
    "line": f"line {LINE_WIDTH_MM:g} mm wide, by length",
    "blob": "irregular blob, by diameter",
}


def draw_size_curve(name: str, findings: Findings, plan: Plan, path: Path) -> None:
    """Draw a column for each form of defect, a row for each false-alarm rate, and a line for each contrast."""
    forms = [form for form in FORMS if any(defect.form == form for defect in plan.defects)]
    contrasts = sorted({defect.contrast for defect in plan.defects})
    sizes = sizes_of(plan.defects)
    figure = Figure(figsize=(4.3 * len(forms) + 0.6, 2.9 * len(plan.rates) + 1), layout="constrained")
    grid = figure.subplots(len(plan.rates), len(forms), squeeze=False, sharex=True, sharey=True)
    colours = mpl.colormaps["viridis"]([0.85 * i / max(1, len(contrasts) - 1) for i in range(len(contrasts))])
    for row, rate in zip(grid, plan.rates, strict=True):
        for axes, form in zip(row, forms, strict=True):
            for contrast, colour in zip(contrasts, colours, strict=True):
                shares = [share_of(findings, Defect(form, size, contrast), rate) for size in sizes]
                axes.plot(sizes, shares, "o-", color=colour, markersize=4, label=f"{contrast:+.0%} brightness")
            base = share_of(findings, None, rate)
            axes.axhline(base, color="grey", linestyle=":", linewidth=1.2, label="without a defect")
            axes.set_xscale("log")
            axes.set_xticks(sizes, [f"{size:g}" for size in sizes], minor=False)
            axes.set_xticks([], minor=True)
            axes.set_ylim(-0.02, 1.03)
            axes.grid(alpha=0.3)
        row[0].set_ylabel(f"share rejected\nat a false-alarm rate of {rate:.0%}")
    for axes, form in zip(grid[0], forms, strict=True):
        axes.set_title(_TITLES[form], fontsize=10)
    for axes in grid[-1]:
        axes.set_xlabel("size in mm")
    grid[0][0].legend(fontsize="small", loc="upper left")
    figure.suptitle(
        f"{name}: defects pasted on {findings.n_pasted_images} unseen OK images, "
        f"{plan.learn[-1]} OK images learned, {plan.mm_per_px:g} mm/px",
        fontsize=11,
    )
    figure.savefig(path, dpi=110)


def share_of(findings: Findings, defect: Defect | None, rate: float) -> float:
    """Return the share of images with a defect that is rejected; NaN where no image was inspected."""
    rejected, n = findings.pasted.get((defect, rate), (0, 0))
    return rejected / n if n else float("nan")


def sizes_of(defects: Sequence[Defect]) -> list[float]:
    """Return the sizes of defects in mm, ascending."""
    return sorted({defect.size_mm for defect in defects})
