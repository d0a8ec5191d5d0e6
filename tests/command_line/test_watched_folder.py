"""Which files of a watched folder are ready, on a clock that the test turns."""

import os
from pathlib import Path

import pytest

from command_line.results import modified_text
from command_line.watched_folder import WatchedFolder

SETTLE_S, PATIENCE_S = 1, 10


@pytest.fixture
def folder(tmp_path: Path) -> WatchedFolder:
    return WatchedFolder(tmp_path, settle_s=SETTLE_S, patience_s=PATIENCE_S, leave_out=tmp_path / "overlays")


def write(path: Path, content: bytes = b"x", mtime_s: float = 1000) -> Path:
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(content)
    os.utime(path, (mtime_s, mtime_s))
    return path


def names(paths: list[Path]) -> list[str]:
    return [path.name for path in paths]


def test_a_file_is_ready_when_it_has_not_changed_for_a_while_and_once(folder, tmp_path):
    image = write(tmp_path / "a.png")
    assert folder.ready(0) == []
    assert folder.ready(0.9) == []
    assert folder.ready(1) == [image]
    folder.done(image)
    assert folder.ready(100) == []


def test_a_file_that_grows_is_not_ready(folder, tmp_path):
    for second in range(5):
        write(tmp_path / "a.png", b"x" * (second + 1))
        assert folder.ready(second) == []
    assert names(folder.ready(5)) == ["a.png"]


def test_a_file_that_is_written_again_is_ready_again(folder, tmp_path):
    image = write(tmp_path / "a.png")
    folder.ready(0)
    folder.ready(1)
    folder.done(image)
    write(image, mtime_s=1001)
    assert folder.ready(2) == []
    assert folder.ready(3) == [image]


def test_a_file_that_changes_while_it_is_inspected_is_ready_again(folder, tmp_path):
    image = write(tmp_path / "a.png")
    folder.ready(0)
    assert folder.ready(1) == [image]
    write(image, b"longer")
    folder.done(image)
    folder.ready(2)
    assert folder.ready(3) == [image]


def test_a_file_that_looks_incomplete_is_tried_again_when_it_changes(folder, tmp_path):
    image = write(tmp_path / "a.png")
    folder.ready(0)
    assert folder.ready(1) == [image]
    assert folder.postpone(image)
    assert folder.ready(2) == []
    write(image, b"complete")
    folder.ready(3)
    assert folder.ready(4) == [image]


def test_a_damaged_file_is_tried_once_more_and_given_up(folder, tmp_path):
    image = write(tmp_path / "a.png")
    folder.ready(0)
    folder.ready(1)
    assert folder.postpone(image)
    assert folder.ready(9) == []
    assert folder.ready(10) == [image]
    assert not folder.postpone(image)


def test_a_file_that_is_renamed_after_its_inspection_is_not_ready_again(folder, tmp_path):
    image = write(tmp_path / "a.png")
    folder.ready(0)
    folder.ready(1)
    folder.done(image)
    image.rename(tmp_path / "b.png")
    folder.ready(2)
    assert folder.ready(100) == []


def test_a_file_that_is_renamed_into_place_is_ready_under_its_last_name(folder, tmp_path):
    write(tmp_path / "tmp.png")
    folder.ready(0)
    (tmp_path / "tmp.png").rename(tmp_path / "a.png")
    folder.ready(0.5)
    assert names(folder.ready(1.5)) == ["a.png"]


def test_other_suffixes_hidden_files_and_overlays_are_left_out_and_folders_below_are_not(folder, tmp_path):
    for name in ("a.png.part", ".b.png", ".hidden/c.png", "overlays/d.png", "deep/E.PNG", "f.tiff"):
        write(tmp_path / name)
    (tmp_path / "folder.png").mkdir()
    folder.ready(0)
    assert sorted(names(folder.ready(1))) == ["E.PNG", "f.tiff"]


def test_files_come_in_the_order_of_their_changes(folder, tmp_path):
    for name, mtime_s in (("c.png", 1000), ("a.png", 1002), ("b.png", 1001)):
        write(tmp_path / name, mtime_s=mtime_s)
    folder.ready(0)
    assert names(folder.ready(1)) == ["c.png", "b.png", "a.png"]


def test_existing_files_count_as_inspected_all_or_those_that_are_named_with_their_time(folder, tmp_path):
    write(tmp_path / "known.png", mtime_s=1000)
    write(tmp_path / "changed.png", mtime_s=1001)
    known = modified_text(1000 * 10**9)
    folder.skip_existing({("known.png", known), ("changed.png", known)})
    folder.ready(0)
    assert names(folder.ready(1)) == ["changed.png"]
    other = WatchedFolder(tmp_path, settle_s=SETTLE_S, patience_s=PATIENCE_S)
    other.skip_existing()
    other.ready(0)
    assert other.ready(1) == []


def test_a_folder_that_is_away_for_a_while_forgets_nothing_but_its_files(folder, tmp_path):
    image = write(tmp_path / "deep" / "a.png")
    folder.ready(0)
    image.unlink()
    (tmp_path / "deep").rmdir()
    assert folder.ready(1) == []
    write(image)
    folder.ready(2)
    assert folder.ready(3) == [image]
