"""Files that contain their own SHA-256, the seal, so that a changed byte is found before the file is used.

The seal has a fixed place: the first key of a JSON object, or the comment of an ``.npz``. It counts as 64 zeros while
it is computed. Format 1 has no seals and is read without them; every write makes format 2.
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
"""Format of the files that this gateway writes. Manifests of students have a later one."""

_HEAD = b'{"sha256": "'
_BLANK = b"0" * 64


class DamagedError(Exception):
    """A file is damaged: it differs from what was written."""


def sha256_of(data: bytes) -> str:
    """Return the hexadecimal SHA-256."""
    return hashlib.sha256(data).hexdigest()


def sealed(text: str) -> bytes:
    """Return the text of a JSON object with its seal as the first key."""
    rest = b'",' + text.encode()[1:]
    return _HEAD + sha256_of(_HEAD + _BLANK + rest).encode() + rest


def unsealed(data: bytes, name: str, newest: int = FORMAT) -> dict[str, Any]:
    """Return the object in a sealed file, or in a file of format 1.

    Args:
        data: the file.
        name: name of the file in an error.
        newest: newest format of such a file that this gateway knows.

    Raises:
        DamagedError: a byte changed, or the file was not written by a gateway.
        NewerFormatError: the file is whole but has a later format.
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
        raise NewerFormatError(f"{name} has format {number}; this gateway knows formats up to {newest}")
    if not (isinstance(number, int) and (number >= FORMAT if has_seal else number == 1)):
        raise DamagedError(f"{name} has an unknown format")
    found: dict[str, Any] = content
    return found


def sealed_npz(**arrays: NDArray[Any]) -> bytes:
    """Return named arrays as an ``.npz`` with its seal as the comment at the end."""
    buffer = io.BytesIO(npz_bytes(**arrays))
    with zipfile.ZipFile(buffer, "a") as archive:
        archive.comment = _BLANK
    data = buffer.getvalue()
    return data[:-64] + sha256_of(data).encode()


def unsealed_npz(data: bytes, name: str) -> dict[str, NDArray[Any]]:
    """Return the arrays of a sealed ``.npz``, or of format 1, an archive without a comment.

    Raises:
        DamagedError: a byte changed, or the file was not written by a gateway.
    """
    has_seal = sha256_of(data[:-64] + _BLANK).encode() == data[-64:]
    if not has_seal and not (data[-22:-18] == b"PK\5\6" and data[-2:] == b"\0\0"):
        raise DamagedError(f"{name} fails its checksum")
    try:
        return read_npz(data)
    except ValueError as error:
        raise DamagedError(f"{name}: {error}") from error
