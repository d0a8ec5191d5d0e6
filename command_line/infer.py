"""`patchcore infer` and `patchcore roi infer`: inspect image files."""

from collections import Counter
from contextlib import aclosing, nullcontext
from pathlib import Path
from typing import Annotated

import typer

from command_line.arguments import InspectOptions, PathsArgument, RoiName, RoiOption
from command_line.commands import command
from command_line.connection import Session
from command_line.exits import ExitStatus
from command_line.files import image_files, require_other_folder
from command_line.inspecting import Inspector, chosen_roi, mm_per_px_of
from command_line.output import json_line, line, progress, say
from command_line.results import counted, csv_file

Csv = Annotated[
    Path | None, typer.Option("--csv", help="Write one row for each image.", metavar="FILE", dir_okay=False)
]
Overlays = Annotated[
    Path | None,
    typer.Option(
        help="Write each image with its heatmap and regions.", metavar="DIR", file_okay=False, resolve_path=True
    ),
]
FailOnNg = Annotated[bool, typer.Option("--fail-on-ng", help="End with status 1 if a part is ng.")]


def register(app: typer.Typer) -> None:
    """Add `infer` to an application."""

    @command(app, "infer")
    async def infer(
        found: Session,
        paths: PathsArgument,
        options: InspectOptions,
        roi: RoiOption = None,
        csv: Csv = None,
        overlays: Overlays = None,
        fail_on_ng: FailOnNg = False,
    ) -> ExitStatus:
        """Inspect image files and folders of them."""
        chosen = await chosen_roi(found, roi)
        return await inspect_files(found, chosen, paths, options, csv, overlays, fail_on_ng=fail_on_ng)


async def inspect_files(
    found: Session,
    roi: RoiName,
    given: list[Path],
    options: InspectOptions,
    csv: Path | None,
    overlays: Path | None,
    *,
    fail_on_ng: bool,
) -> ExitStatus:
    """Inspect the given files and folders. Print one line for each image, and a summary.

    Returns:
        `FAILED` if an image was not inspected, or has no verdict although `fail_on_ng` asks for one. `NG`
        if a part is ng and `fail_on_ng`.

    Raises:
        PatchcoreError: an error that is not about one image. The rows of the images before it are written.
        UsageError: there is no image, or a file cannot be written.
    """
    images = image_files(given, overlays)
    require_other_folder(overlays, images.folder)
    mm_per_px = await mm_per_px_of(found.client, roi, options.mm_per_px)
    inspector = Inspector(found, roi, options, mm_per_px=mm_per_px, folder=images.folder, overlays=overlays)
    verdicts: Counter[str] = Counter()
    try:
        with progress() as bar, nullcontext() if csv is None else csv_file(csv) as rows:
            task = bar.add_task("inspecting", total=len(images.paths))
            async with aclosing(inspector.results(images.paths)) as results:
                async for result in results:
                    verdicts[result.verdict] += 1
                    if rows is not None:
                        rows.write(result.row())
                    if found.json:
                        json_line(result.record())
                    else:
                        line(result.line())
                    bar.update(task, advance=1, description=f"inspecting, {verdicts['ng']} ng")
    finally:
        _summarise(verdicts, len(images.paths), csv, overlays)
    if verdicts["error"]:
        return ExitStatus.FAILED
    undecided = sorted(set(verdicts) - {"ok", "review", "ng"})
    if fail_on_ng and undecided:
        say(f"error: {', '.join(undecided)} is no verdict; `patchcore roi calibrate` sets the thresholds")
        return ExitStatus.FAILED
    return ExitStatus.NG if fail_on_ng and verdicts["ng"] else ExitStatus.DONE


def _summarise(verdicts: Counter[str], total: int, csv: Path | None, overlays: Path | None) -> None:
    if not verdicts:
        return
    done = verdicts.total()
    said = counted(verdicts) if done == total else f"{counted(verdicts)}; {total - done} without a result"
    if csv is not None:
        said += f"; rows in {csv}"
    if overlays is not None:
        said += f"; overlays in {overlays}"
    say(said)
