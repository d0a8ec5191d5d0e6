"""Heatmaps as files, for clients that ask for ``heatmap=path``."""

import logging
import os
import re
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from datetime import date, timedelta
from pathlib import Path, PurePath

from gateway.errors import InvalidRequestError, StorageFullError
from gateway.store.atomic import storage_errors
from gateway.store.roi_key import RoiKey, stored_keys

log = logging.getLogger(__name__)

_DAY = re.compile(r"\d{4}-\d{2}-\d{2}")
_NAME = re.compile(r"[0-9a-f]{32}\.png")


class HeatmapFiles:
    """The folder for heatmaps: `RoiKey.path`, then ``<YYYY-MM-DD>/<32 hexadecimal digits>.png``."""

    def __init__(self, folder: Path | None) -> None:
        """Use a folder; it is created with the first heatmap.

        Args:
            folder: None where the gateway writes no heatmaps.
        """
        self._folder = folder

    def require_folder(self) -> Path:
        """Return the folder.

        Raises:
            InvalidRequestError: the gateway has none.
        """
        if self._folder is None:
            raise InvalidRequestError(
                "heatmap: 'path' was asked for, but this gateway has no folder for heatmaps",
                "Set GATEWAY_HEATMAP_DIR, or send heatmap=base64 or heatmap=none.",
            )
        return self._folder

    def write(self, key: RoiKey, png: bytes) -> str:
        """Write a heatmap to a new file and return its path relative to the folder.

        Raises:
            StorageFullError: the file cannot be written, or it would lie outside the folder.
        """
        folder = self.require_folder()
        relative = key.path / time.strftime("%Y-%m-%d") / f"{uuid.uuid4().hex}.png"
        path = folder / relative
        with storage_errors("the heatmap folder"):
            # Somebody may have replaced the folder of an ROI by a link.
            if not path.resolve().is_relative_to(folder.resolve()):
                raise StorageFullError(
                    f"the heatmaps of {key} would be written outside GATEWAY_HEATMAP_DIR",
                    f"Replace the link {key.path.as_posix()} in the folder for heatmaps by a folder.",
                )
            path.parent.mkdir(parents=True, exist_ok=True)
            try:
                path.write_bytes(png)
            except OSError:
                path.unlink(missing_ok=True)  # half a picture: no client knows its name
                raise
        return relative.as_posix()

    def remove_old(self, keep_days: int, today: date, stop: Callable[[], bool] = lambda: False) -> int:
        """Remove the heatmaps of days that are over for longer than they are kept. Blocks.

        Only files with names that `write` gives are removed, and their folder once it is empty; links are neither
        followed nor removed.

        Args:
            keep_days: a heatmap of today is kept for this many more days.
            today: the local date.
            stop: called between folders; whether to leave the rest.

        Returns:
            How many files were removed.
        """
        if self._folder is None or not self._folder.is_dir():
            return 0
        first_kept = (today - timedelta(days=keep_days)).isoformat()
        n_removed = 0
        for key in stored_keys(self._folder):
            if stop():
                return n_removed
            try:
                with _opened_path(self._folder, key.path) as roi_folder:
                    n_removed += _remove_days(roi_folder, first_kept)
            except OSError as error:
                log.warning("%s: old heatmaps are not removed: %s", key, error)
        if n_removed:
            log.info("%d heatmaps of days before %s removed", n_removed, first_kept)
        return n_removed


def _remove_days(roi_folder: int, first_kept: str) -> int:
    """Remove the heatmaps of all days before one, given as ``YYYY-MM-DD``; return how many."""
    n_removed = 0
    for day in _folders(roi_folder):
        if not _DAY.fullmatch(day) or day >= first_kept:
            continue
        with _opened(day, roi_folder) as day_folder:
            with os.scandir(day_folder) as entries:
                names = [e.name for e in entries if _NAME.fullmatch(e.name) and e.is_file(follow_symlinks=False)]
            for name in names:
                with suppress(FileNotFoundError):  # another process removes the same day
                    os.unlink(name, dir_fd=day_folder)
                    n_removed += 1
        with suppress(OSError):  # other files are in it
            os.rmdir(day, dir_fd=roi_folder)
    return n_removed


@contextmanager
def _opened(name: str | Path, inside: int | None = None) -> Iterator[int]:
    """Open a folder by its name in another one, which must not be a link. Removals then go by this descriptor."""
    no_link = 0 if inside is None else os.O_NOFOLLOW
    descriptor = os.open(name, os.O_RDONLY | os.O_DIRECTORY | no_link, dir_fd=inside)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


@contextmanager
def _opened_path(root: Path, path: PurePath) -> Iterator[int]:
    """Open a folder below a root. No folder on the way may be a link."""
    with ExitStack() as stack:
        descriptor = stack.enter_context(_opened(root))
        for name in path.parts:
            descriptor = stack.enter_context(_opened(name, descriptor))
        yield descriptor


def _folders(descriptor: int) -> list[str]:
    with os.scandir(descriptor) as entries:
        return sorted(entry.name for entry in entries if entry.is_dir(follow_symlinks=False))
