"""The thresholds of a version on disk: its own ``calib.json``, and the ROI's, which is the one in use once more."""

import logging
from contextlib import suppress
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from gateway.store.atomic import read_replaced, replace_file
from gateway.store.checksummed import DamagedError
from gateway.store.manifest import CALIBRATION, Calibration, Manifest

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class StoredCalibration:
    """What is stored of a version's calibration."""

    calibration: Calibration | None
    damaged: str | None = None
    """What of it is damaged, where a copy answers."""
    has_own: bool = True
    """Whether the version's own file is there and whole, or none is due."""


def stored_calibration(roi: Path, version: Path, manifest: Manifest) -> StoredCalibration:
    """The calibration that goes with a version.

    Args:
        roi: folder of the ROI.
        version: folder of the version.
        manifest: of the version.

    Raises:
        DamagedError: it is damaged, and no copy that was kept with the same version is whole.
        NewerFormatError: a newer gateway wrote it.
    """
    number = manifest.version
    own, own_damaged = _read(version)
    spare, spare_damaged = _read(roi)
    is_same = spare is not None and spare.kept_with == number
    if own is None and own_damaged is None and is_same:
        # The two may have been written since the first was looked for.
        own, own_damaged = _read(version)
        own_damaged = own_damaged or (f"{CALIBRATION} is gone" if own is None else None)
    if own is not None:
        return StoredCalibration(own, spare_damaged)
    if own_damaged is None and spare_damaged is None:
        # Format 1 had one file for all versions.
        return StoredCalibration(spare if manifest.format == 1 else None, has_own=spare is None)
    if own_damaged is not None and is_same:
        return StoredCalibration(spare, f"version {number}: {own_damaged}", has_own=False)
    raise DamagedError(own_damaged or spare_damaged)


def mirror_calibration(roi: Path, version: Path, manifest: Manifest) -> None:
    """Put the calibration of the version in use into the ROI's file too; better none there than another's."""
    spare, own = roi / CALIBRATION, version / CALIBRATION
    try:
        if own.exists():
            replace_file(spare, own.read_bytes())
        elif manifest.format > 1:
            spare.unlink(missing_ok=True)
    except OSError as error:
        log.warning("%s: the spare copy of the calibration cannot be written: %s", spare, error.strerror)
        with suppress(OSError):
            spare.unlink(missing_ok=True)


@lru_cache(maxsize=512)
def _parsed(data: bytes) -> Calibration:
    # Read for every inspection, and nearly always the same.
    return Calibration.from_bytes(data, CALIBRATION)


def _read(folder: Path) -> tuple[Calibration | None, str | None]:
    """The calibration in a folder, if there is any, and what is wrong with it."""
    try:
        return _parsed(read_replaced(folder / CALIBRATION)), None
    except (FileNotFoundError, NotADirectoryError):
        return None, None
    except OSError as error:
        return None, f"{CALIBRATION}: {error.strerror}"
    except DamagedError as error:
        return None, str(error)
