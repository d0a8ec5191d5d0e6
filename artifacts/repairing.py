"""Write the damaged pointer of an ROI in a bucket anew."""

import re
from dataclasses import dataclass

from artifacts.moving import acting
from gateway.errors import GatewayError
from gateway.store.artifact_store import ArtifactStore
from gateway.store.audit import Change
from gateway.store.bucket.objects import LostRaceError, Objects
from gateway.store.bucket.pointers import object_of
from gateway.store.bucket.repair import FoundList, is_damaged, last_lists, point_to
from gateway.store.checksummed import DamagedError
from gateway.store.manifest import CURRENT
from gateway.store.pointer import read_pointer
from gateway.store.roi_key import RoiKey

_VERSION = re.compile(r"versions/([0-9]+)/")


class RepairError(Exception):
    """An ROI that is not repaired, or not without a choice."""


@dataclass(frozen=True, slots=True)
class Repaired:
    """What an ROI has again."""

    version: int | None
    """The version in use; None where it was never fitted."""
    said: str
    """What it has, and since when."""


def repair_pointer(store: ArtifactStore, url: str, key: RoiKey, wanted: str | None) -> Repaired | None:
    """Make the last list of an ROI's files the one that its pointer names. The audit trail has it as a rollback.

    Args:
        store: the ROIs of a bucket.
        url: of the bucket.
        key: the ROI.
        wanted: name of the list; by default the last one, if there is one.

    Returns:
        What the ROI has then; None if the pointer was not damaged, and nothing was changed.

    Raises:
        RepairError: no list is whole, or several may be the last one.
        StorageUnavailableError: the bucket does not answer.
    """
    objects = Objects(url)
    if not is_damaged(objects, key):
        return None
    lists = last_lists(objects, key)
    fitting = [each for each in lists if wanted is None or each.name.startswith(wanted)]
    if not fitting:
        which = "list of its files" if wanted is None else f"list {wanted}"
        raise RepairError(f"{key}: the bucket has no whole {which}; restore its objects from older versions of them")
    if len(fitting) > 1:
        said = "; ".join(f"--list {each.name[:12]}: {_said(each)}" for each in fitting)
        raise RepairError(f"{key}: a writer was killed at its last change, so say which list is the last one: {said}")
    (found,) = fitting
    version = _version_of(objects, key, found)
    try:
        with acting(), store.audit.change(key, Change("rollback", None, version)):
            point_to(objects, key, found)
    except LostRaceError:
        raise RepairError(f"{key}: its pointer changed meanwhile, and is left as it is") from None
    return Repaired(version, _said(found))


def _said(found: FoundList) -> str:
    versions = sorted({int(match[1]) for name in found.files if (match := _VERSION.match(name))})
    n_ok = sum(name.startswith("ok/") for name in found.files)
    return f"of {found.written:%Y-%m-%d %H:%M:%S}, versions {', '.join(map(str, versions)) or 'none'}, {n_ok} OK images"


def _version_of(objects: Objects, key: RoiKey, found: FoundList) -> int | None:
    file = found.files.get(CURRENT)
    if file is None:
        return None
    try:
        return read_pointer(objects.get_large(object_of(key, file.object))).number
    except (FileNotFoundError, DamagedError, GatewayError):
        return None
