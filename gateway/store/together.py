"""Several files of one folder that appear together or not at all, also when the process is killed in between.

All data is written aside first. Then a journal names the files: from here on they count. Then each is moved to its
place. Whoever holds the lock of the folder next completes a journal that a killed process left.
"""

import json
import re
import uuid
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path

from gateway.store.atomic import replace_file, sync_folder, write_file
from gateway.store.checksummed import DamagedError, sealed, unsealed

JOURNAL = ".journal"
_NAME = re.compile(r"[0-9a-f]{64}\.[a-z]{1,8}")
_BATCH = re.compile(r"[0-9a-f]{32}")


def write_together(folder: Path, files: Sequence[tuple[str, Callable[[], bytes]]], *, journal: bool = True) -> None:
    """Write files, new ones or in place of others. The caller holds a lock of the folder.

    Args:
        folder: an existing folder.
        files: names, each with a callable that returns the content. They are moved to their places in this order.
        journal: False spares the journal where the last file alone makes the others count.

    Raises:
        OSError: a file cannot be written or moved. The folder is as it was.
    """
    batch = uuid.uuid4().hex
    names = [name for name, _ in files]
    try:
        for name, read in files:
            write_file(_aside(folder, name, batch), read())
        for name in names:
            if (folder / name).exists():
                write_file(_before(folder, name, batch), (folder / name).read_bytes())
        if journal:
            replace_file(folder / JOURNAL, sealed(json.dumps({"format": 2, "batch": batch, "names": names})))
    except BaseException:
        _forget(folder, names, batch)
        raise
    try:
        for name in names:
            _aside(folder, name, batch).replace(folder / name)
        sync_folder(folder)
    except BaseException:
        # If this fails too, the journal stays, and the files are moved to their places later.
        _undo(folder, names, batch)
        _forget(folder, names, batch)
        raise
    with suppress(OSError):  # a journal that stays has nothing left to do
        _forget(folder, names, batch)


def complete_interrupted(folder: Path) -> None:
    """Move the files of a journal to their places. The caller holds the lock of the folder.

    Raises:
        OSError: a file cannot be moved; the journal stays.
    """
    journal = folder / JOURNAL
    try:
        content = unsealed(journal.read_bytes(), JOURNAL)
    except FileNotFoundError:
        return
    except DamagedError:  # nothing can be completed; the files aside are removed with those of other interrupted writes
        journal.unlink(missing_ok=True)
        return
    batch, names = content["batch"], content["names"]
    if not (_BATCH.fullmatch(batch) and all(_NAME.fullmatch(name) for name in names)):
        journal.unlink(missing_ok=True)
        return
    for name in names:
        with suppress(FileNotFoundError):  # it is in its place
            _aside(folder, name, batch).replace(folder / name)
    sync_folder(folder)
    _forget(folder, names, batch)


def _undo(folder: Path, names: Sequence[str], batch: str) -> None:
    for name in reversed(names):
        if not _aside(folder, name, batch).exists():
            (folder / name).replace(_aside(folder, name, batch))
        before = _before(folder, name, batch)
        if before.exists():
            before.replace(folder / name)


def _forget(folder: Path, names: Sequence[str], batch: str) -> None:
    (folder / JOURNAL).unlink(missing_ok=True)
    for name in names:
        _aside(folder, name, batch).unlink(missing_ok=True)
        _before(folder, name, batch).unlink(missing_ok=True)


def _aside(folder: Path, name: str, batch: str) -> Path:
    return folder / f".{name}.{batch}.tmp"


def _before(folder: Path, name: str, batch: str) -> Path:
    return folder / f".before.{name}.{batch}.tmp"
