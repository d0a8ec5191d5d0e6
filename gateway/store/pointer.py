"""Read the pointer of an ROI, its file ``current``."""

import re
from functools import lru_cache

from gateway.store.manifest import Pointer, VersionRef

_FORMAT_1 = re.compile(rb"([0-9]{1,9}) ([0-9a-f]{64})\n?")


@lru_cache(maxsize=512)
def read_pointer(data: bytes) -> VersionRef:
    """Return the version that a pointer names. Cached, since every inspection reads it and it rarely changes.

    Raises:
        DamagedError: no copy of the pointer in the file is whole.
        NewerFormatError: a newer gateway wrote it.
    """
    if old := _FORMAT_1.fullmatch(data):
        return VersionRef(int(old[1]), old[2].decode())
    pointer = Pointer.from_lines(data)
    damaged = None if data == pointer.to_bytes() else "'current' is damaged, its second copy answers"
    return VersionRef(pointer.version, pointer.sha256, damaged, pointer.manifests, pointer.last)
