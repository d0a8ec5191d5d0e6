"""Copy ROIs between models folders and buckets: every version, image and calibration, and the audit trail."""

import re
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass

from artifacts.checking import damages
from gateway.errors import GatewayError
from gateway.store.artifact_store import ArtifactStore
from gateway.store.manifest import CURRENT
from gateway.store.place import Place
from gateway.store.roi_key import RoiKey

_TOKENS = re.compile(r"(ok|images)/[0-9a-f]{64}\.npz")
_ALL = 2**31


class CopyError(Exception):
    """An ROI that is not copied, or not as it is."""


@dataclass(frozen=True, slots=True)
class Copied:
    """What was copied of an ROI."""

    n_files: int
    n_bytes: int
    n_changes: int
    """Lines of its audit trail."""


def copy_roi(source: ArtifactStore, target: ArtifactStore, key: RoiKey, timeout_s: float) -> Copied:
    """Copy an ROI. It appears at the target as a whole, in a bucket by one move, in a folder by its file ``current``.

    Writers at the source wait, if it is a folder. If it is a bucket, a change meanwhile is found at the end, and the
    copy is refused. Tokens of OK images are not copied: the next fit computes them.

    Args:
        source: where it is.
        target: where it is not yet.
        key: the ROI.
        timeout_s: longest time to wait for a writer.

    Raises:
        CopyError: something at the source is damaged or changed meanwhile. The target has nothing of it.
        OverloadedError: a writer is at work.
        StorageFullError: the target cannot be written.
    """
    with source.lock(key, timeout_s), source.image_lock(key, timeout_s):
        if found := next(damages(source, key, tokens=False), None):
            raise CopyError(f"{key} is damaged, and is not copied: {found}")
        files = {name: place.read_bytes() for name, place in _files_of(source.folder(key))}
        changes = source.storage.audit(key, _ALL)
        with target.lock(key, timeout_s, creates=True), target.image_lock(key, timeout_s):
            try:
                _write(target, key, files)
                if {name: place.read_bytes() for name, place in _files_of(source.folder(key))} != files:
                    raise CopyError(f"{key} changed while it was copied, and is not copied: copy it again")
            except BaseException:
                with suppress(FileNotFoundError, GatewayError):
                    target.storage.delete(key)
                raise
            for line in changes:
                target.storage.append_audit(key, line)
    return Copied(len(files), sum(map(len, files.values())), len(changes))


def _write(target: ArtifactStore, key: RoiKey, files: Mapping[str, bytes]) -> None:
    folder = target.folder(key)
    with target.storage.batch(key):
        for name in sorted(files, key=lambda name: name == CURRENT):
            target.storage.replace(key, _in(folder, name), files[name])
    if differing := [name for name in files if _in(folder, name).read_bytes() != files[name]]:
        raise CopyError(f"{key} is not copied: {differing[0]} is not what was written")


def _files_of(folder: Place, inside: str = "") -> Iterator[tuple[str, Place]]:
    """Yield the files of an ROI by name, without those of interrupted writes."""
    for place in folder.glob("*"):
        name = f"{inside}{place.name}"
        if place.name.startswith(".") or _TOKENS.fullmatch(name):
            continue
        if place.is_dir():
            yield from _files_of(place, f"{name}/")
        else:
            yield name, place


def _in(folder: Place, name: str) -> Place:
    for part in name.split("/"):
        folder = folder / part
    return folder
