"""Image files below folders."""

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from command_line.exits import UsageError

SUFFIXES = frozenset({".bmp", ".jpeg", ".jpg", ".png", ".tif", ".tiff"})
"""Suffixes of the formats that the gateway reads, in lower case."""


def images_in(folder: Path, leave_out: Path | None = None) -> Iterator[os.DirEntry[str]]:
    """Yield the image files below a folder, in no order.

    Hidden files and folders are left out. Links to files are followed, links to folders are not. A folder that
    disappears or cannot be read counts as empty.

    Args:
        folder: where to look, at any depth; absolute.
        leave_out: a folder below it to leave out, absolute.
    """
    try:
        entries = list(os.scandir(folder))
    except OSError:
        return
    for entry in entries:
        if entry.name.startswith("."):
            continue
        if entry.is_dir(follow_symlinks=False):
            below = Path(entry.path)
            if below != leave_out:
                yield from images_in(below, leave_out)
        elif Path(entry.name).suffix.lower() in SUFFIXES and _is_file(entry):
            yield entry


@dataclass(frozen=True, slots=True)
class ImageFiles:
    """Image files, and the folder that their names are below."""

    folder: Path
    paths: list[Path]
    """In the order of their names, for each given path."""


def image_files(given: Sequence[Path], leave_out: Path | None = None) -> ImageFiles:
    """Find the given files, and the image files below the given folders. Paths become absolute.

    Args:
        given: files and folders that exist.
        leave_out: a folder to leave out: that of the overlays.

    Raises:
        UsageError: there is no image, or a file has no suffix of an image.
    """
    paths: list[Path] = []
    for path in map(Path.resolve, given):
        if path.is_dir():
            paths += sorted(Path(entry.path) for entry in images_in(path, leave_out))
        elif path.suffix.lower() in SUFFIXES:
            paths.append(path)
        else:
            raise UsageError(f"{path}: expected an image: {', '.join(sorted(SUFFIXES))}")
    if not paths:
        raise UsageError(f"no images in {', '.join(map(str, given))}")
    folders = [path if path.is_dir() else path.parent for path in map(Path.resolve, given)]
    return ImageFiles(Path(os.path.commonpath(folders)), paths)


def name_below(folder: Path, path: Path) -> str:
    """Return the path below a folder, with slashes. Bytes of a name that are not UTF-8 are written as `\\xff`."""
    return os.fsencode(path.relative_to(folder).as_posix()).decode("utf-8", "backslashreplace")


def require_other_folder(overlays: Path | None, images: Path) -> None:
    """Refuse to write overlays to the folder of the images, whose files they would replace. Both are absolute.

    Raises:
        UsageError: it is the same folder.
    """
    if overlays == images:
        raise UsageError(f"--overlays {overlays}: is the folder of the images", "Name another folder.")


def _is_file(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_file()
    except OSError:
        return False
