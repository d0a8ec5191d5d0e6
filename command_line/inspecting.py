"""Inspecting many image files, several at once, with the results in the order of the files."""

import asyncio
import os
from collections import deque
from collections.abc import AsyncGenerator, Iterable
from contextlib import suppress
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path, PurePosixPath

from anyio.to_thread import run_sync as in_thread
from patchcore_client import (
    AsyncPatchcoreClient,
    ImageError,
    Inspection,
    InvalidRequestError,
    PatchcoreError,
    TooLargeError,
    UnsupportedImageError,
)
from patchcore_client.overlay import draw

from command_line.arguments import InspectOptions, RoiName
from command_line.connection import Session
from command_line.exits import UsageError
from command_line.files import name_below
from command_line.output import say
from command_line.results import Result, modified_text

ABOUT_ONE_IMAGE = (ImageError, InvalidRequestError, TooLargeError, UnsupportedImageError)
"""Errors that say something of one image. The other images can be inspected all the same."""


class Inspector:
    """Inspects the files of a folder for one ROI."""

    def __init__(
        self,
        found: Session,
        roi: RoiName,
        options: InspectOptions,
        *,
        mm_per_px: float,
        folder: Path,
        overlays: Path | None = None,
    ) -> None:
        """Send nothing yet.

        Args:
            found: the gateway.
            roi: the ROI of all images.
            options: how to inspect.
            mm_per_px: millimetres per pixel of all images.
            folder: above all images; names of results are paths below it.
            overlays: another folder, for the images with heatmap and regions.
        """
        self._session = found
        self._roi = roi
        self._fields = {**asdict(options), "mm_per_px": mm_per_px, "heatmap": "base64" if overlays else "none"}
        self._folder = folder
        self._overlays = overlays

    async def results(self, paths: Iterable[Path]) -> AsyncGenerator[Result]:
        """Yield the result of each file, in their order.

        Raises:
            PatchcoreError: an error that is not about one image: no connection, an unknown ROI, a wrong key.
        """
        running: deque[asyncio.Task[Result]] = deque()
        try:
            for path in paths:
                running.append(asyncio.create_task(self.result(path)))
                if len(running) >= self._session.in_flight:
                    yield await running.popleft()
            while running:
                yield await running.popleft()
        finally:
            for task in running:
                task.cancel()
            await asyncio.gather(*running, return_exceptions=True)

    async def result(self, path: Path) -> Result:
        """Inspect one file, and draw its overlay.

        Raises:
            PatchcoreError: an error that is not about the image.
        """
        name = name_below(self._folder, path)
        modified = ""
        outcome: Inspection | PatchcoreError
        try:
            mtime_ns, data = await in_thread(_read, path)
            modified = modified_text(mtime_ns)
            outcome = await self._session.client.infer(
                self._roi.role_id, self._roi.roi_id, (PurePosixPath(name).name, data), **self._fields
            )
            if self._overlays is not None:
                await in_thread(_draw, data, outcome, _overlay_path(self._overlays, name))
        except ABOUT_ONE_IMAGE as error:
            outcome = error
        return Result(name, modified, outcome, datetime.now(UTC))


async def mm_per_px_of(client: AsyncPatchcoreClient, roi: RoiName, given: float | None) -> float:
    """Return the given millimetres per pixel, or those that the ROI was learned with."""
    return given if given is not None else (await client.get_roi(roi.role_id, roi.roi_id)).mm_per_px


async def chosen_roi(found: Session, given: RoiName | None) -> RoiName:
    """Return the given ROI, or the only one of the recipe.

    Raises:
        UsageError: there are several, or none.
    """
    if given is not None:
        return given
    # Without a recipe, the gateway lists those of all recipes.
    rois = [roi for roi in (await found.client.list_rois()).rois if found.recipe or roi.recipe_id == "default"]
    if len(rois) != 1:
        names = ", ".join(f"{roi.role_id}/{roi.roi_id}" for roi in rois[:10])
        raise UsageError(f"the gateway has {len(rois)} ROIs: {names or 'none'}", "Name one with --roi ROLE/ROI.")
    only = RoiName(rois[0].role_id, rois[0].roi_id)
    say(f"ROI {only}, the only one")
    return only


def _read(path: Path) -> tuple[int, bytes]:
    """Return the time of the last change of a file, in nanoseconds, and its bytes."""
    try:
        with path.open("rb") as file:
            return os.fstat(file.fileno()).st_mtime_ns, file.read()
    except OSError as error:
        raise ImageError(f"{path}: {error.strerror or error}") from error


def _overlay_path(folder: Path, name: str) -> Path:
    """Return where the overlay of an image is written: `a.png` for `a.png`, `a.jpg.png` for `a.jpg`."""
    return folder / (name if name.lower().endswith(".png") else f"{name}.png")


def _draw(data: bytes, found: Inspection, target: Path) -> None:
    try:
        picture = draw(data, found)
        target.parent.mkdir(parents=True, exist_ok=True)
        picture.save(target)
    except (ImageError, OSError) as error:
        with suppress(OSError):
            target.unlink(missing_ok=True)
        say(f"no overlay {target.name}: {error}")
