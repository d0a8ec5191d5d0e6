"""`patchcore watch`: inspect each new file of a folder that a camera writes to."""

import asyncio
import time
from collections import Counter
from collections.abc import AsyncGenerator
from contextlib import nullcontext
from pathlib import Path
from typing import Annotated

import typer
from anyio.to_thread import run_sync as in_thread
from patchcore_client import (
    AnswerError,
    ConnectError,
    EngineUnavailableError,
    ImageError,
    OverloadedError,
    ShuttingDownError,
    UnsupportedImageError,
)

from command_line.arguments import InspectOptions, RoiOption
from command_line.commands import command
from command_line.connection import Session
from command_line.files import require_other_folder
from command_line.infer import Overlays
from command_line.inspecting import Inspector, chosen_roi
from command_line.output import json_line, say
from command_line.results import Result, counted, csv_file, inspected_before
from command_line.watched_folder import WatchedFolder

_LOOK_S = 0.25
_LONGEST_WAIT_S = 30.0
_GATEWAY_AWAY = (AnswerError, ConnectError, EngineUnavailableError, OverloadedError, ShuttingDownError)
_LOOKS_INCOMPLETE = (ImageError, UnsupportedImageError)


def register(app: typer.Typer) -> None:
    """Add `watch` to an application."""

    @command(app, "watch")
    async def watch(
        found: Session,
        folder: Annotated[
            Path,
            typer.Argument(
                help="Folder that images come to.", exists=True, file_okay=False, resolve_path=True, metavar="DIR"
            ),
        ],
        options: InspectOptions,
        roi: RoiOption = None,
        csv: Annotated[
            Path | None,
            typer.Option(
                help="Append one row for each image; none is inspected again after a restart.", dir_okay=False
            ),
        ] = None,
        overlays: Overlays = None,
        existing: Annotated[bool, typer.Option("--existing", help="Inspect the files that are there already.")] = False,
        settle: Annotated[
            float, typer.Option(help="A file is complete after so many seconds without a change.", min=0, metavar="S")
        ] = 0.5,
        give_up: Annotated[
            float,
            typer.Option(
                "--give-up", help="A file that cannot be read is damaged after so many seconds without a change.", min=0
            ),
        ] = 10,
    ) -> None:
        """Inspect each new image of a folder once, until Ctrl-C. Prints one line of JSON for each."""
        chosen = await chosen_roi(found, roi)
        require_other_folder(overlays, folder)
        learned = await found.client.get_roi(chosen.role_id, chosen.roi_id)  # fails now where inspections would fail
        mm_per_px = learned.mm_per_px if options.mm_per_px is None else options.mm_per_px
        inspector = Inspector(found, chosen, options, mm_per_px=mm_per_px, folder=folder, overlays=overlays)
        watched = WatchedFolder(folder, settle_s=settle, patience_s=give_up, leave_out=overlays)
        with nullcontext() if csv is None else csv_file(csv, append=True) as rows:
            watched.skip_existing(None if not existing else inspected_before(csv) if csv else set())
            say(f"watching {folder} for {chosen}; Ctrl-C ends")
            verdicts: Counter[str] = Counter()
            try:
                async for result in _results(inspector, watched, found.in_flight):
                    verdicts[result.verdict] += 1
                    if rows is not None:
                        rows.write(result.row())
                    json_line(result.record())
            finally:
                say(counted(verdicts))


async def _results(inspector: Inspector, watched: WatchedFolder, in_flight: int) -> AsyncGenerator[Result]:
    """Yield the result of each file that becomes complete, without end."""
    while True:
        ready = await in_thread(watched.ready, time.monotonic())
        for start in range(0, len(ready), in_flight):
            part = ready[start : start + in_flight]
            for path, result in zip(part, await asyncio.gather(*(patient(inspector, p) for p in part)), strict=True):
                if isinstance(result.outcome, _LOOKS_INCOMPLETE) and watched.postpone(path):
                    continue
                watched.done(path)
                if not isinstance(result.outcome, ImageError) or path.exists():
                    yield result
        await asyncio.sleep(_LOOK_S)


async def patient(inspector: Inspector, path: Path) -> Result:
    """Inspect a file, and wait for a gateway that is away.

    Raises:
        PatchcoreError: the gateway refuses for good: an unknown ROI, or a wrong key.
    """
    wait_s = 1.0
    while True:
        try:
            return await inspector.result(path)
        except _GATEWAY_AWAY as error:
            if wait_s == 1:
                say(f"waiting for the gateway: {error}")
        await asyncio.sleep(wait_s)
        wait_s = min(2 * wait_s, _LONGEST_WAIT_S)
