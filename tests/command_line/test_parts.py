"""Parts of the command line without a gateway: names, rows, CSV files, what is printed."""

import csv
import os
from datetime import UTC, datetime

import pytest
import typer
from patchcore_client import ImageError

from command_line.arguments import RoiName, parse_roi
from command_line.exits import UsageError
from command_line.files import image_files, name_below, require_other_folder
from command_line.output import cell, printable
from command_line.results import COLUMNS, Result, csv_file, inspected_before

WHEN = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)


def failed(name: str) -> Result:
    return Result(name, "2026-01-01T00:00:00.000000+00:00", ImageError("the file is empty"), WHEN)


def test_an_roi_is_a_role_and_a_roi():
    assert parse_roi("disc front/pad.1") == RoiName("disc front", "pad.1")
    assert str(RoiName("a", "b")) == "a/b"


@pytest.mark.parametrize("text", ["a", "a/", "/b", "winter/a/b", "../b", "a/..", " /b"])
def test_anything_else_is_refused(text):
    with pytest.raises(typer.BadParameter, match="expected ROLE/ROI"):
        parse_roi(text)


def test_images_are_found_in_the_order_of_their_names_below_their_common_folder(tmp_path):
    for name in ("b/2.png", "b/1.JPG", "a/3.bmp", "a/notes.txt", "a/.hidden.png"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    found = image_files([tmp_path / "b", tmp_path / "a" / "3.bmp"])
    assert found.folder == tmp_path
    assert [name_below(found.folder, path) for path in found.paths] == ["b/1.JPG", "b/2.png", "a/3.bmp"]
    assert image_files([tmp_path / "b" / "2.png"]).folder == tmp_path / "b"
    assert [path.name for path in image_files([tmp_path], leave_out=tmp_path / "b").paths] == ["3.bmp"]
    with pytest.raises(UsageError, match=r"notes.txt: expected an image"):
        image_files([tmp_path / "a" / "notes.txt"])
    (tmp_path / "empty").mkdir()
    with pytest.raises(UsageError, match="no images"):
        image_files([tmp_path / "empty"])


def test_overlays_never_replace_the_images(tmp_path):
    require_other_folder(tmp_path / "overlays", tmp_path)
    require_other_folder(None, tmp_path)
    with pytest.raises(UsageError, match="is the folder of the images"):
        require_other_folder(tmp_path, tmp_path)


@pytest.mark.skipif(os.name == "nt", reason="names are Unicode there")
def test_a_name_that_is_not_utf8_can_be_written(tmp_path):
    path = tmp_path / os.fsdecode(b"t\xffl.png")
    assert name_below(tmp_path, path) == "t\\xffl.png"


def test_an_image_that_was_not_inspected_has_a_row_with_its_error():
    row = dict(zip(COLUMNS, failed("a.png").row(), strict=True))
    assert (row["file"], row["verdict"], row["score"], row["error"]) == ("a.png", "", "", "the file is empty")
    assert failed("a.png").record()["error"] == {"code": "ImageError", "message": "the file is empty", "hint": ""}


def test_a_csv_file_keeps_what_is_done_and_says_what_that_is(tmp_path):
    path = tmp_path / "out.csv"
    for name in ("a.png", 'b"; ü.png'):
        with csv_file(path, append=True) as rows:
            rows.write(failed(name).row())
    with path.open(encoding="utf-8", newline="") as file:
        assert [row["file"] for row in csv.DictReader(file)] == ["a.png", 'b"; ü.png']
    assert {name for name, _ in inspected_before(path)} == {"a.png", 'b"; ü.png'}
    assert inspected_before(tmp_path / "none.csv") == set()


def test_a_row_that_a_killed_process_left_incomplete_is_ended_and_does_not_count(tmp_path):
    path = tmp_path / "out.csv"
    with csv_file(path) as rows:
        rows.write(failed("a.png").row())
    path.write_bytes(path.read_bytes() + b"half.png,2026-01-01T00:")
    assert {name for name, _ in inspected_before(path)} == {"a.png"}
    with csv_file(path, append=True) as rows:
        rows.write(failed("b.png").row())
    assert {name for name, _ in inspected_before(path)} == {"a.png", "b.png"}


def test_a_csv_file_of_something_else_is_left_alone(tmp_path):
    path = tmp_path / "prices.csv"
    path.write_text("part,price\n1,2\n")
    with pytest.raises(UsageError, match="other columns"), csv_file(path, append=True):
        pass
    assert path.read_text() == "part,price\n1,2\n"


def test_control_characters_of_a_name_do_not_reach_the_terminal():
    assert printable("a\x1b[2Jb\nc ü") == "a\\x1b[2Jb\\nc ü"
    assert cell(["x\x07", 0.123456, True, None]) == "x\\x07, 0.1235, yes, "
