"""Arguments and options that several commands have."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import typer
from patchcore_client import PatchcoreClient, PatchcoreError, Retries

from command_line.exits import UsageError


@dataclass(frozen=True, slots=True)
class RoiName:
    """An ROI of the recipe of the command."""

    role_id: str
    roi_id: str

    def __str__(self) -> str:
        return f"{self.role_id}/{self.roi_id}"


def parse_roi(text: str) -> RoiName:
    """Return the ROI that `ROLE/ROI` names. An id has no slash.

    Raises:
        typer.BadParameter: it has another form.
    """
    role_id, slash, roi_id = text.partition("/")
    if not slash or "/" in roi_id or not role_id.strip(". ") or not roi_id.strip(". "):
        raise typer.BadParameter(f"{text!r}: expected ROLE/ROI, such as housing/face; --recipe names a recipe")
    return RoiName(role_id, roi_id)


def complete_roi(ctx: typer.Context, incomplete: str) -> list[str]:
    """Return the ROIs of the gateway that begin with what was typed, for the shell. No answer completes nothing."""
    try:
        with PatchcoreClient(
            ctx.params.get("url"),
            ctx.params.get("key"),
            recipe_id=ctx.params.get("recipe"),
            connect_timeout_s=1,
            timeout_s=2,
            retries=Retries(attempts=1),
        ) as client:
            names = [f"{roi.role_id}/{roi.roi_id}" for roi in client.list_rois().rois]
    except (PatchcoreError, ValueError):
        return []
    return sorted({name for name in names if name.startswith(incomplete)})


_ROI: dict[str, Any] = {"parser": parse_roi, "metavar": "ROLE/ROI", "autocompletion": complete_roi}

RoiArgument = Annotated[RoiName, typer.Argument(help="Part or station, and region of it.", **_ROI)]
RoiOption = Annotated[
    RoiName | None, typer.Option("--roi", help="Part or station, and region of it. Default: the only ROI.", **_ROI)
]
PathsArgument = Annotated[
    list[Path], typer.Argument(help="Image files, and folders of them.", exists=True, metavar="PATH")
]
MmPerPx = Annotated[
    float | None,
    typer.Option("--mm-per-px", min=0, help="Millimetres per pixel of the image. Default: as learned.", metavar="MM"),
]
Shape = Annotated[
    str | None,
    typer.Option(
        help='Where the part is, in pixels: {"kind": "circle", "cx": 192, "cy": 192, "r": 180}', metavar="JSON"
    ),
]
BitDepth = Annotated[
    int | None, typer.Option("--bit-depth", help="Bits per sample of the camera, for files of 16 bits.", metavar="BITS")
]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Show what would be deleted, and delete nothing.")]
Yes = Annotated[bool, typer.Option("--yes", "-y", help="Delete without asking.")]


@dataclass(frozen=True, slots=True, kw_only=True)
class InspectOptions:
    """How images are inspected. Without an option, the ROI's calibration or the gateway's setting counts."""

    mm_per_px: MmPerPx = None
    shape: Shape = None
    bit_depth: BitDepth = None
    k: Annotated[int | None, typer.Option("--k", help="Nearest neighbours to average.", metavar="N")] = None
    p_score: Annotated[
        float | None, typer.Option("--p-score", help="Percentile that is the score, 95 to 100.", metavar="P")
    ] = None
    blur_sigma: Annotated[
        float | None, typer.Option("--blur-sigma", help="Blur of the map, in pixels.", metavar="PX")
    ] = None
    area_mm2_thr: Annotated[
        float | None, typer.Option("--area-mm2-thr", help="Smallest area of a region, in mm².", metavar="MM2")
    ] = None


def tiles_asked(text: str | None) -> Literal["auto"] | int | None:
    """Return what `--tiles` asks for.

    Raises:
        UsageError: neither ``auto`` nor a number.
    """
    if text is None:
        return None
    if text == "auto":
        return "auto"
    if not (text.isascii() and text.isdecimal()):
        raise UsageError(f"--tiles {text}: expected auto or a whole number of at least 1")
    return int(text)


def tiles_in_words(tiles: tuple[int, int]) -> str | None:
    """Return the rows and columns of tiles; None for the whole image."""
    return None if tiles == (1, 1) else f"{tiles[0]} × {tiles[1]}"
