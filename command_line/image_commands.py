"""`patchcore roi images …`: the images of an ROI that the gateway keeps, with their labels."""

from typing import Annotated, Literal

import typer
from patchcore_client.models import ImageAnswer, ImageList

from command_line.arguments import BitDepth, DryRun, PathsArgument, RoiArgument, RoiName, Shape, Yes
from command_line.commands import command, confirmed
from command_line.connection import Session
from command_line.exits import ExitStatus, UsageError
from command_line.files import image_files
from command_line.output import line, print_json, progress, say, table

images_app = typer.Typer(no_args_is_help=True, help="The images of an ROI that the gateway keeps, with their labels.")

_PAGE = 500
_AT_ONCE = 20
_SHORT_ID = 12
_SHORTEST_ID = 4

Label = Literal["ok", "ng"]
Ids = Annotated[list[str], typer.Argument(help="Id of an image, or its first characters.", metavar="ID")]
LabelOption = Annotated[Label, typer.Option(help="Good or defective.")]


@command(images_app, "list")
async def list_images(
    found: Session, roi: RoiArgument, label: Annotated[Label | None, typer.Option(help="Only these.")] = None
) -> None:
    """List the images, oldest first."""
    pages = await _pages(found, roi, label)
    images = [image for page in pages for image in page.images]
    if found.json:
        print_json({**pages[0].model_dump(mode="json"), "images": [image.model_dump(mode="json") for image in images]})
        return
    table(
        ("id", "label", "file", "size", "learned", "suspect", "score", "peak"),
        (
            (
                image.id[:_SHORT_ID],
                image.label,
                image.file_name,
                f"{image.width} × {image.height}",
                image.learned,
                image.suspect,
                image.score,
                image.peak,
            )
            for image in images
        ),
    )
    for warning in pages[0].warnings:
        say(f"warning: {warning}")


@command(images_app, "add")
async def add(
    found: Session,
    roi: RoiArgument,
    paths: PathsArgument,
    label: LabelOption,
    shape: Shape = None,
    bit_depth: BitDepth = None,
) -> None:
    """Store images. The next fit learns those that are ok."""
    files = image_files(paths).paths
    added = duplicates = 0
    with progress() as bar:
        task = bar.add_task("storing", total=len(files))
        for start in range(0, len(files), _AT_ONCE):
            part = files[start : start + _AT_ONCE]
            answer = await found.client.store_images(
                roi.role_id, roi.roi_id, part, label=label, shape=shape, bit_depth=bit_depth
            )
            added, duplicates = added + answer.n_added, duplicates + answer.duplicates
            bar.advance(task, len(part))
    if found.json:
        print_json({**answer.model_dump(mode="json", exclude={"images"}), "n_added": added, "duplicates": duplicates})
        return
    line(f"{roi}: {added} added, {duplicates} were stored already; now {answer.n_ok} OK and {answer.n_ng} NG images")
    for warning in answer.warnings:
        say(f"warning: {warning}")


@command(images_app, "relabel")
async def relabel(found: Session, roi: RoiArgument, ids: Ids, label: LabelOption) -> None:
    """Change the label of images. The next fit takes it over."""
    for image in await _chosen(found, roi, ids):
        answer = await found.client.change_image(roi.role_id, roi.roi_id, image.id, label=label)
        if found.json:
            print_json(answer)
        else:
            line(f"{_named(image)}: {image.label} → {answer.label}")


@command(images_app, "delete")
async def delete(
    found: Session,
    roi: RoiArgument,
    ids: Annotated[
        list[str] | None, typer.Argument(help="Id of an image, or its first characters.", metavar="ID")
    ] = None,
    label: Annotated[Label | None, typer.Option(help="Delete all images with this label.")] = None,
    dry_run: DryRun = False,
    yes: Yes = False,
) -> ExitStatus:
    """Delete images. The next fit removes them from the memory bank."""
    if bool(ids) == (label is not None):
        raise UsageError("expected ids of images, or --label for all with that label")
    if ids:
        chosen = await _chosen(found, roi, ids)
    else:
        chosen = [image for page in await _pages(found, roi, label) for image in page.images]
    if dry_run:
        if found.json:
            print_json({"would_delete": [image.id for image in chosen]})
        for image in chosen if not found.json else ():
            line(f"would delete {_named(image)}, {image.label}")
        return ExitStatus.DONE
    if chosen and not confirmed(f"delete {len(chosen)} images of {roi}", yes=yes):
        return ExitStatus.NG
    with progress() as bar:
        task = bar.add_task("deleting", total=len(chosen))
        for image in chosen:
            await found.client.delete_image(roi.role_id, roi.roi_id, image.id)
            bar.advance(task)
    if found.json:
        print_json({"deleted": [image.id for image in chosen]})
    else:
        line(f"{roi}: deleted {len(chosen)} images")
    return ExitStatus.DONE


async def _pages(found: Session, roi: RoiName, label: Label | None) -> list[ImageList]:
    """Return all pages of the images, one at least."""
    pages: list[ImageList] = []
    offset = 0
    while not pages or (offset < pages[0].total and pages[-1].images):
        pages.append(await found.client.list_images(roi.role_id, roi.roi_id, label=label, offset=offset, limit=_PAGE))
        offset += len(pages[-1].images)
    return pages


async def _chosen(found: Session, roi: RoiName, ids: list[str]) -> list[ImageAnswer]:
    """Return the images that ids, or beginnings of ids, name. Each once.

    Raises:
        UsageError: an id names none or several.
    """
    images = [image for page in await _pages(found, roi, None) for image in page.images]
    chosen: dict[str, ImageAnswer] = {}
    for given in ids:
        if len(given) < _SHORTEST_ID:
            raise UsageError(f"{given!r}: expected the first {_SHORTEST_ID} characters of an id, or more")
        named = [image for image in images if image.id.startswith(given.lower())]
        if len(named) != 1:
            raise UsageError(
                f"{given!r} names {len(named)} images of {roi}", f"`patchcore roi images list {roi}` lists the ids."
            )
        chosen[named[0].id] = named[0]
    return list(chosen.values())


def _named(image: ImageAnswer) -> str:
    return f"{image.id[:_SHORT_ID]} ({image.file_name})"
