"""Calibrations on disk: the version's own ``calib.json``, and the ROI's, a mirror of the active one."""

import logging
from contextlib import suppress
from dataclasses import dataclass
from functools import lru_cache

from gateway.errors import StorageFullError
from gateway.store.atomic import read_replaced
from gateway.store.checksummed import DamagedError
from gateway.store.manifest import CALIBRATION, Calibration, Manifest
from gateway.store.place import Place, Storage
from gateway.store.roi_key import RoiKey

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class StoredCalibration:
    """The stored calibration of a version, and its damage."""

    calibration: Calibration | None
    damaged: str | None = None
    """The damage, if a copy is used instead."""
    has_own: bool = True
    """Whether the version's own file is whole, or no file is expected."""


def stored_calibration(roi: Place, version: Place, manifest: Manifest) -> StoredCalibration:
    """Return the calibration of a version.

    Args:
        roi: folder of the ROI.
        version: folder of the version.
        manifest: of the version.

    Raises:
        DamagedError: it is damaged, and no whole copy was kept with the same version.
        NewerFormatError: a newer gateway wrote it.
    """
    number = manifest.version
    own, own_damaged = _read(version)
    spare, spare_damaged = _read(roi)
    is_same = spare is not None and spare.kept_with == number
    if own is None and own_damaged is None and is_same:
        # A writer may have written both since the first read.
        own, own_damaged = _read(version)
        own_damaged = own_damaged or (f"{CALIBRATION} is missing" if own is None else None)
    if own is not None:
        return StoredCalibration(own, spare_damaged)
    if own_damaged is None and spare_damaged is None:
        # Format 1 has one file for all versions.
        return StoredCalibration(spare if manifest.format == 1 else None, has_own=spare is None)
    if own_damaged is not None and is_same:
        return StoredCalibration(spare, f"version {number}: {own_damaged}", has_own=False)
    raise DamagedError(own_damaged or spare_damaged)


def mirror_calibration(storage: Storage, key: RoiKey, version: Place, manifest: Manifest) -> None:
    """Copy the calibration in use to the ROI's file. If that fails, remove the file rather than leave a stale one."""
    spare, own = storage.folder(key) / CALIBRATION, version / CALIBRATION
    try:
        if own.exists():
            storage.replace(key, spare, own.read_bytes())
        elif manifest.format > 1:
            storage.remove(key, spare)
    except (OSError, StorageFullError) as error:
        log.warning("%s: the spare copy of the calibration cannot be written: %s", key, error)
        with suppress(OSError, StorageFullError):
            storage.remove(key, spare)


@lru_cache(maxsize=512)
def _parsed(data: bytes) -> Calibration:
    # Cached, since every inspection reads it and it rarely changes.
    return Calibration.from_bytes(data, CALIBRATION)


def _read(folder: Place) -> tuple[Calibration | None, str | None]:
    """Return the calibration in a folder, if there is one, and its damage."""
    try:
        return _parsed(read_replaced(folder / CALIBRATION)), None
    except (FileNotFoundError, NotADirectoryError):
        return None, None
    except OSError as error:
        return None, f"{CALIBRATION}: {error.strerror}"
    except DamagedError as error:
        return None, str(error)
