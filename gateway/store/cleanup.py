"""Cleanup of interrupted writes when a gateway starts.

An ROI is cleaned only under its lock. If a writer holds the lock, the ROI is left for the next start. Only files and
folders with names that a gateway gives are removed.
"""

import logging
import re
import shutil
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

from gateway.errors import ArtifactCorruptError, NewerFormatError, OverloadedError, StorageFullError, UnknownRoiError
from gateway.store.artifact_store import TRASH, ArtifactStore
from gateway.store.roi_key import RoiKey

log = logging.getLogger(__name__)

_ASIDE = re.compile(r"\..+\.[0-9a-f]{32}\.tmp")
_PROBE = re.compile(r"\.probe\.[0-9a-f]{32}")
_LOCK_WAIT_S = 0.05


def sweep(store: ArtifactStore, stop: Callable[[], bool] = lambda: False) -> int:
    """Remove the leftovers of all ROIs. Blocks.

    Args:
        store: the models folder.
        stop: is called between ROIs; True ends the cleanup.

    Returns:
        The number of removed files and folders.
    """
    gone = 0
    with suppress(OSError):
        # No reader sees these any more, and a writer tolerates their removal.
        gone += sum(_remove(path) for path in (store.root / TRASH).glob("*"))
        gone += sum(_remove(path) for path in store.root.glob(".probe.*") if _PROBE.fullmatch(path.name))
    for key in store.folders():
        if stop():
            break
        try:
            with store.lock(key, _LOCK_WAIT_S):
                gone += _sweep_roi(store, key)
        except (OverloadedError, NewerFormatError) as error:
            log.info("not cleaned: %s", error.message)
        except (StorageFullError, OSError) as error:
            log.warning("%s: not cleaned: %s", key, error)
    if gone:
        log.info("removed %d files or folders of interrupted writes", gone)
    return gone


def _sweep_roi(store: ArtifactStore, key: RoiKey) -> int:
    folder = store.folder(key)
    gone = sum(_remove(path) for path in _asides(folder))
    images = store.images(key)
    if images.folder.is_dir():
        with store.image_lock(key, _LOCK_WAIT_S):
            gone += sum(_remove(path) for path in (*_asides_in(images.folder), *images.orphans()))
    try:
        ref = store.current(key)
    except ArtifactCorruptError:
        return gone  # without a pointer, orphans cannot be told apart
    except UnknownRoiError:
        if not store.numbers(key):  # an interrupted first fit, not an ROI that lost its pointer
            gone += store.ok(key).keep_only(set())
            with store.image_lock(key, _LOCK_WAIT_S):
                for empty in (folder / "ok", folder / "versions", folder / "images", folder):
                    with suppress(OSError):
                        empty.rmdir()
        return gone
    if ref.last is not None and ref.damaged is None:
        for orphan in store.numbers(key) - ref.manifests.keys():
            store.remove_version(key, orphan)
            gone += 1
    return gone + store.drop_unnamed_images(key)


def _asides(folder: Path) -> Iterator[Path]:
    for place in (folder, folder / "ok", folder / "versions", *(folder / "versions").glob("[0-9]*")):
        yield from _asides_in(place)


def _asides_in(place: Path) -> Iterator[Path]:
    if place.is_dir():
        yield from (path for path in list(place.iterdir()) if _ASIDE.fullmatch(path.name))


def _remove(path: Path) -> bool:
    if path.is_dir():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)
    return not path.exists()
