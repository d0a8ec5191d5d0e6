"""Write files that a server may be reading."""

import os
import secrets
from pathlib import Path

from export.errors import ExportError


def replace_file(path: Path, data: bytes) -> None:
    """Replace a file atomically: a reader sees the old content or the new content. Equal content is not written.

    Raises:
        ExportError: the file cannot be written.
    """
    aside = path.parent / f".tmp-{secrets.token_hex(4)}"
    try:
        if path.is_file() and path.read_bytes() == data:
            return
        with aside.open("wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        aside.replace(path)
    except OSError as error:
        aside.unlink(missing_ok=True)
        raise ExportError(f"cannot write {path}: {error.strerror or error}") from error
