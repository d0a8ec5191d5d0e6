"""The database of recent inspections."""

import multiprocessing
import os
import sqlite3
import threading
from pathlib import Path

import numpy as np
import pytest

from gateway.images.appearance import Look
from gateway.monitoring.drift.recent import RecentInspections
from gateway.store.manifest import Manifest
from gateway.store.roi_key import RoiKey
from tests.gateway.monitoring.drift.test_measure import KEY, manifest

LEARNED = manifest([0.1, 0.2])
OTHER_KEY = RoiKey("steel", "other")


def add(log: RecentInspections, score: float, learned: Manifest = LEARNED, key: RoiKey = KEY) -> None:
    log.add(key, learned, score=score, threshold=None, verdict="uncalibrated", look=Look(1.0, 2.0))


def scores(log: RecentInspections, learned: Manifest = LEARNED, key: RoiKey = KEY) -> list[float]:
    return log.of(key, learned).score.tolist()


def file_of(folder: Path) -> Path:
    (file,) = folder.glob("*.sqlite3")
    return file


def test_the_window_holds_the_latest_inspections_in_order_after_a_restart(tmp_path) -> None:
    log = RecentInspections(tmp_path, 5)
    for i in range(12):
        add(log, i)
    assert scores(RecentInspections(tmp_path, 5)) == [7, 8, 9, 10, 11]


def test_every_value_of_an_inspection_is_kept(tmp_path) -> None:
    log = RecentInspections(tmp_path, 5)
    add(log, 0.1)
    for alike in (True, False):
        log.add(KEY, LEARNED, score=1, threshold=2.5, verdict="ng", look=Look(3.0, 4.0), scored_alike=alike)
    recent = log.of(KEY, LEARNED)
    assert recent.score.tolist() == [0.1, 1, 1]
    assert np.isnan(recent.threshold).tolist() == [True, False, False]
    assert (recent.threshold[1], recent.brightness[1], recent.sharpness[1]) == (2.5, 3, 4)
    assert recent.verdict.tolist() == ["uncalibrated", "ng", "ng"]
    assert recent.scored_alike.tolist() == [True, True, False]
    assert (np.diff(recent.time) >= 0).all()
    assert recent.judged_ok.tolist() == [True, False, False]


def test_another_recipe_has_a_window_of_its_own(tmp_path) -> None:
    log = RecentInspections(tmp_path, 5)
    winter = RoiKey(KEY.role_id, KEY.roi_id, "winter")
    add(log, 1)
    add(log, 2, key=winter)
    assert (scores(log), scores(log, key=winter)) == ([1], [2])
    log.forget(KEY)
    assert (scores(log), scores(log, key=winter), log.last_number(winter)) == ([], [2], 1)


def test_windows_of_a_release_without_recipes_are_those_of_the_default_recipe(tmp_path) -> None:
    log = RecentInspections(tmp_path, 5)
    add(log, 1)
    add(log, 2)
    log.close()
    columns = "role_id, roi_id, n, bank, time, score, threshold, brightness, sharpness, verdict, comparable"
    with sqlite3.connect(file_of(tmp_path)) as connection:
        connection.executescript(
            f"CREATE TABLE old AS SELECT {columns} FROM inspection; DROP TABLE inspection;"
            "ALTER TABLE old RENAME TO inspection; PRAGMA user_version=1;"
        )
    log = RecentInspections(tmp_path, 5)
    add(log, 3)
    assert scores(log) == [1, 2, 3]


def test_another_bank_has_a_window_of_its_own(tmp_path) -> None:
    log = RecentInspections(tmp_path, 5)
    other = manifest([0.1, 0.2], bank="b" * 64)
    add(log, 1)
    add(log, 2, other)
    assert (scores(log, other), scores(log)) == ([2], [1])


def test_rois_have_windows_of_their_own(tmp_path) -> None:
    log = RecentInspections(tmp_path, 2)
    for i in range(4):
        add(log, i)
        add(log, 10 + i, key=OTHER_KEY)
    assert (scores(log), scores(log, key=OTHER_KEY)) == ([2, 3], [12, 13])


def test_a_deleted_roi_leaves_no_inspection(tmp_path) -> None:
    log = RecentInspections(tmp_path, 5)
    add(log, 1)
    add(log, 2, key=OTHER_KEY)
    log.forget(KEY)
    log.forget(KEY)
    assert (scores(log), scores(log, key=OTHER_KEY)) == ([], [2])
    log.close()
    with sqlite3.connect(file_of(tmp_path)) as database:
        assert database.execute("SELECT count(*) FROM inspection").fetchone() == (1,)


def test_the_database_does_not_grow_beyond_its_windows(tmp_path) -> None:
    log = RecentInspections(tmp_path, 50)
    for i in range(100):
        add(log, i)
    log.close()
    size = file_of(tmp_path).stat().st_size
    for i in range(500):
        add(log, i)
    log.close()
    assert file_of(tmp_path).stat().st_size == size
    with sqlite3.connect(file_of(tmp_path)) as database:
        assert database.execute("SELECT count(*) FROM inspection").fetchone() == (50,)


@pytest.mark.parametrize("content", [b"text " * 500, os.urandom(10_000)], ids=["text", "noise"])
def test_a_file_that_is_no_database_is_replaced_and_logged(tmp_path, caplog, content) -> None:
    (tmp_path / "inspections.sqlite3").write_bytes(content)
    log = RecentInspections(tmp_path, 5)
    assert scores(log) == []
    add(log, 3)
    assert scores(log) == [3]
    assert "the drift windows start empty" in caplog.text


def test_a_database_damaged_while_it_is_open_is_replaced(tmp_path, caplog) -> None:
    log = RecentInspections(tmp_path, 500)
    for i in range(300):
        add(log, i)
    log.close()
    file = file_of(tmp_path)
    data = bytearray(file.read_bytes())
    data[4096:] = os.urandom(len(data) - 4096)  # all pages but the first
    file.write_bytes(data)
    other = RecentInspections(tmp_path, 500)
    for i in range(3):
        add(log, i)
    add(other, 3)
    assert scores(log) == scores(other) == [0, 1, 2, 3]
    assert caplog.text.count("the drift windows start empty") == 1


def test_a_deleted_database_is_created_again(tmp_path) -> None:
    log = RecentInspections(tmp_path, 5)
    add(log, 1)
    for file in tmp_path.iterdir():
        file.unlink()
    add(log, 2)
    assert scores(log) == [2]


def test_files_of_an_earlier_release_are_removed_and_logged(tmp_path, caplog) -> None:
    for role in ("steel", "brass"):
        (tmp_path / role).mkdir()
        (tmp_path / role / "drift.ring").write_bytes(b"drift-01" + bytes(100))
    (tmp_path / "brass" / "notes.txt").write_text("not ours")
    log = RecentInspections(tmp_path, 5)
    add(log, 1)
    assert sorted(p.name for p in tmp_path.iterdir() if p.is_dir()) == ["brass"]
    assert [p.name for p in (tmp_path / "brass").iterdir()] == ["notes.txt"]
    assert "removed 2 drift files of an earlier release; the drift windows of these ROIs start empty" in caplog.text
    assert scores(log) == [1]


def test_an_unwritable_folder_raises_nothing_and_is_logged_once(tmp_path, caplog) -> None:
    (tmp_path / "file").write_text("")
    log = RecentInspections(tmp_path / "file", 5)
    for i in range(3):
        add(log, i)
    assert scores(log) == []
    assert caplog.text.count("inspections are not recorded for drift") == 1
    (tmp_path / "file").unlink()
    add(log, 4)
    assert scores(log) == [4]


def _add_many(folder: Path, start: int) -> None:
    log = RecentInspections(folder, 10_000)
    for i in range(100):
        add(log, start + i)


def test_processes_and_threads_write_to_one_window(tmp_path) -> None:
    context = multiprocessing.get_context("spawn")
    workers = [context.Process(target=_add_many, args=(tmp_path, 1000 * i)) for i in range(2)]
    log = RecentInspections(tmp_path, 10_000)
    threads = [threading.Thread(target=lambda i=i: [add(log, 1000 * i + j) for j in range(100)]) for i in (2, 3)]
    for each in (*workers, *threads):
        each.start()
    for each in (*workers, *threads):
        each.join()
    assert sorted(scores(log)) == [1000 * i + j for i in range(4) for j in range(100)]
