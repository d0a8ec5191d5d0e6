"""Files that carry their own SHA-256, so that one changed byte is noticed before anything in them is believed.

The checksum stands at a fixed place and counts as 64 zeros while it is computed: the first key of a JSON object, the
comment of an ``.npz``. Format 1, written before there were seals, is read as it is; every write makes format 2.
"""

import hashlib
import io
import json
import zipfile
from typing import Any

from numpy.typing import NDArray

from gateway.errors import NewerFormatError
from gateway.store.arrays import npz_bytes, read_npz

FORMAT = 2
"""Of what this gateway writes on disk, but for manifests that gateways of this format could not serve."""

_HEAD = b'{"sha256": "'
_BLANK = b"0" * 64


class DamagedError(Exception):
    """A file that is not what was written."""


def sha256_of(data: bytes) -> str:
    """Hexadecimal SHA-256."""
    return hashlib.sha256(data).hexdigest()


def sealed(text: str) -> bytes:
    """A JSON object's text with its seal as the first key."""
    rest = b'",' + text.encode()[1:]
    return _HEAD + sha256_of(_HEAD + _BLANK + rest).encode() + rest


def unsealed(data: bytes, name: str, newest: int = FORMAT) -> dict[str, Any]:
    """The object in a sealed file, or in one of format 1.

    Args:
        data: the file.
        name: what to call it in an error.
        newest: the last format of such a file that this gateway knows.

    Raises:
        DamagedError: a byte changed, or it is no file of ours.
        NewerFormatError: it is whole, and of a later format.
    """
    at = len(_HEAD)
    has_seal = data.startswith(_HEAD)
    if has_seal and sha256_of(data[:at] + _BLANK + data[at + 64 :]).encode() != data[at : at + 64]:
        raise DamagedError(f"{name} fails its checksum")
    try:
        content = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise DamagedError(f"{name} is not JSON") from error
    number = content.get("format", 1) if isinstance(content, dict) else None
    if isinstance(number, int) and number > newest:
        raise NewerFormatError(f"{name} is of format {number}; this gateway knows formats up to {newest}")
    if not (isinstance(number, int) and (number >= FORMAT if has_seal else number == 1)):
        raise DamagedError(f"{name} is of no format that was ever written")
    found: dict[str, Any] = content
    return found


def sealed_npz(**arrays: NDArray[Any]) -> bytes:
    """Named arrays as an ``.npz`` with its seal as the comment at its end."""
    buffer = io.BytesIO(npz_bytes(**arrays))
    with zipfile.ZipFile(buffer, "a") as archive:
        archive.comment = _BLANK
    data = buffer.getvalue()
    return data[:-64] + sha256_of(data).encode()


def unsealed_npz(data: bytes, name: str) -> dict[str, NDArray[Any]]:
    """The arrays of a sealed ``.npz``, or of one of format 1, which ends as an archive without a comment does.

    Raises:
        DamagedError: a byte changed, or it is no file of ours.
    """
    has_seal = sha256_of(data[:-64] + _BLANK).encode() == data[-64:]
    if not has_seal and not (data[-22:-18] == b"PK\5\6" and data[-2:] == b"\0\0"):
        raise DamagedError(f"{name} fails its checksum")
    try:
        return read_npz(data)
    except ValueError as error:
        raise DamagedError(f"{name}: {error}") from error
