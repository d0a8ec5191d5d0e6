"""Cleanup of interrupted writes when a gateway starts.

An ROI is cleaned only under its lock. If a writer holds the lock, the ROI is left for the next start. Only files and
folders with names that a gateway gives are removed.
"""

import logging
from collections.abc import Callable
from contextlib import nullcontext

from gateway.errors import (
    ArtifactCorruptError,
    NewerFormatError,
    OverloadedError,
    StorageFullError,
    StorageUnavailableError,
    UnknownRoiError,
)
from gateway.store.artifact_store import ArtifactStore
from gateway.store.roi_key import RoiKey

log = logging.getLogger(__name__)

_LOCK_WAIT_S = 0.05


def sweep(store: ArtifactStore, stop: Callable[[], bool] = lambda: False) -> int:
    """Remove the leftovers of all ROIs. Blocks.

    Args:
        store: all ROIs.
        stop: is called between ROIs; True ends the cleanup.

    Returns:
        The number of removed files and folders.
    """
    try:
        gone, keys = store.storage.clean(), store.folders()
    except (StorageFullError, StorageUnavailableError) as error:
        log.warning("nothing was cleaned: %s", error.message)
        return 0
    for key in keys:
        if stop():
            break
        try:
            with store.lock(key, _LOCK_WAIT_S):
                gone += _sweep_roi(store, key)
        except (OverloadedError, NewerFormatError) as error:
            log.info("not cleaned: %s", error.message)
        except (StorageFullError, StorageUnavailableError, OSError) as error:
            log.warning("%s: not cleaned: %s", key, error)
    if gone:
        log.info("removed %d files or folders of interrupted writes", gone)
    return gone


def _sweep_roi(store: ArtifactStore, key: RoiKey) -> int:
    images = store.images(key)
    with store.image_lock(key, _LOCK_WAIT_S) if images.folder.is_dir() else nullcontext():
        gone = store.storage.clean_roi(key) + images.remove_orphans()
    try:
        ref = store.current(key)
    except ArtifactCorruptError:
        return gone  # without a pointer, orphans cannot be told apart
    except UnknownRoiError:
        if not store.numbers(key):  # an interrupted first fit, not an ROI that lost its pointer
            gone += store.ok(key).keep_only(set())
            with store.image_lock(key, _LOCK_WAIT_S):
                store.storage.drop_empty(key)
        return gone
    if ref.last is not None and ref.damaged is None:
        for orphan in store.numbers(key) - ref.manifests.keys():
            store.remove_version(key, orphan)
            gone += 1
    return gone + store.drop_unnamed_images(key)
