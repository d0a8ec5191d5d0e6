"""Files that appear together: all of them or none, whatever interrupts the write."""

import itertools
import os
import subprocess
import sys
from pathlib import Path

import pytest

from gateway.store.checksummed import sealed
from gateway.store.together import JOURNAL, complete_interrupted
from tests.e2e.gateway_process import PROJECT
from tests.gateway.store.dying_writer import NAMES, counted, write

OLD = {NAMES[0]: b"old a"}
NEW = {NAMES[0]: b"new a", NAMES[1]: b"new b"}


def files(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def visible(folder: Path) -> dict[str, bytes]:
    return {name: data for name, data in files(folder).items() if not name.startswith(".")}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / NAMES[0]).write_bytes(b"old a")
    return tmp_path


def test_files_replace_and_appear_and_nothing_else_stays(folder: Path) -> None:
    write(folder)
    assert files(folder) == NEW


def test_killed_at_any_step_all_files_are_there_afterwards_or_none(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "tests.gateway.store.dying_writer", str(tmp_path)]
    subprocess.run(command, cwd=PROJECT, check=True, timeout=60)
    found, halves = [], 0
    for each in sorted(tmp_path.iterdir(), key=lambda path: int(path.name)):
        halves += visible(each) not in (OLD, NEW)
        complete_interrupted(each)
        found.append(visible(each))
        complete_interrupted(each)
        assert visible(each) == found[-1]
        assert JOURNAL not in files(each)
    first_whole = found.index(NEW)
    assert found == [OLD] * first_whole + [NEW] * (len(found) - first_whole)
    assert first_whole >= 5  # two files, what one of them was, and the journal are written before
    assert halves >= 1, "no kill was between two files: the test shows nothing"


def test_an_error_at_any_step_leaves_the_folder_as_it_was(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail() -> None:
        raise OSError(28, "No space left on device")

    refused = 0
    for at in itertools.count(1):
        with monkeypatch.context() as patch:
            for name, step in counted(at, fail).items():
                patch.setattr(os, name, step)
            try:
                write(folder)
            except OSError:
                refused += 1
                assert files(folder) == OLD
            else:
                break
    assert refused >= 8  # four files synced, the journal and two files moved, and the folder synced
    assert visible(folder) == NEW


def test_a_folder_that_can_neither_be_written_nor_restored_is_completed_later(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    replace, moves = os.replace, itertools.count(1)

    def broken(source: Path, target: Path) -> None:
        if next(moves) > 2:  # the journal and the first file
            raise OSError(5, "Input/output error")
        replace(source, target)

    with monkeypatch.context() as patch:
        patch.setattr(os, "replace", broken)
        with pytest.raises(OSError, match="Input/output"):
            write(folder)
    assert visible(folder) not in (OLD, NEW)
    complete_interrupted(folder)
    assert files(folder) == NEW


@pytest.mark.parametrize(
    "journal",
    [
        b"damaged",
        sealed('{"format": 2, "batch": "../x", "names": ["../../y"]}'),
        sealed('{"format": 2, "batch": "' + "a" * 32 + '", "names": ["../y"]}'),
    ],
)
def test_a_journal_that_no_write_left_moves_nothing(folder: Path, journal: bytes) -> None:
    (folder / JOURNAL).write_bytes(journal)
    complete_interrupted(folder)
    assert files(folder) == OLD
