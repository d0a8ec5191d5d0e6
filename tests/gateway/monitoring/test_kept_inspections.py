"""Inspected images are kept for review, within their bounds."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from gateway.monitoring.kept_inspections import KeptInspection, KeptInspections
from gateway.store.roi_key import RoiKey

KEY = RoiKey("part", "face")
NOW = 1_800_000_000.0
DAY_S = 24 * 3600
PLAIN = KeptInspection(
    image_id="",
    file_name="x.png",
    time=NOW,
    n_bytes=100,
    width=8,
    height=8,
    bit_depth=None,
    verdict="ok",
    verdict_reason=None,
    score=0.5,
    threshold=0.6,
    peak=0.5,
    peak_threshold=0.6,
    review_threshold=None,
    version=1,
)


@pytest.fixture(autouse=True)
def _now(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gateway.monitoring.kept_inspections.time.time", lambda: NOW)


def kept(folder: Path, **settings: Any) -> KeptInspections:
    return KeptInspections(folder, **{"keeps": True, "max_bytes": 1000, "days": 7, **settings})


def inspection(name: str, **fields: Any) -> KeptInspection:
    return replace(PLAIN, image_id=name, **fields)


def written(folder: Path, *inspections: KeptInspection, key: RoiKey = KEY, **settings: Any) -> KeptInspections:
    """Keep inspections of images of 100 bytes, and wait until they are written."""
    store = kept(folder, **settings)
    for each in inspections:
        store.add(key, each, each.image_id.encode().ljust(100))
    store.close()
    return store


def names(store: KeptInspections, key: RoiKey = KEY, **asked: Any) -> list[str]:
    wanted = {"order": "newest", "verdict": None, "offset": 0, "limit": 100, **asked}
    return [each.image_id for _, each in store.of(key, **wanted)[1]]


def test_the_newest_are_first_or_those_nearest_to_their_threshold(tmp_path: Path) -> None:
    store = written(
        tmp_path,
        inspection("far", peak=0.1),
        inspection("near", peak=0.61, verdict="ng"),
        inspection("unknown", peak=None),
        inspection("between", peak=0.4),
    )
    assert names(store) == ["between", "unknown", "near", "far"]
    assert names(store, order="borderline") == ["near", "between", "far", "unknown"]
    assert names(store, verdict="ng") == ["near"]
    assert names(store, offset=1, limit=2) == ["unknown", "near"]
    assert store.of(KEY, "newest", None, 0, 1)[0] == 4


def test_an_image_comes_back_as_it_was_sent_and_only_for_its_own_roi(tmp_path: Path) -> None:
    store = written(tmp_path, inspection("a"))
    ((number, _),) = store.of(KEY, "newest", None, 0, 9)[1]
    assert store.one(KEY, number) == (inspection("a"), b"a".ljust(100))
    assert store.one(RoiKey("part", "back"), number) is None
    assert store.one(KEY, number + 1) is None


def test_a_picture_that_is_inspected_again_is_there_once_with_its_last_verdict(tmp_path: Path) -> None:
    store = written(tmp_path, inspection("a"), inspection("b"), inspection("a", verdict="ng"))
    assert names(store) == ["a", "b"]
    assert names(store, verdict="ok") == ["b"]


def test_the_oldest_go_when_the_bytes_are_used_up(tmp_path: Path) -> None:
    store = written(tmp_path, *(inspection(str(i)) for i in range(8)), max_bytes=350)
    assert names(store) == ["7", "6", "5"]


def test_an_image_that_is_larger_than_all_bytes_is_not_kept(tmp_path: Path) -> None:
    assert names(written(tmp_path, inspection("a"), max_bytes=99)) == []


def test_old_inspections_are_not_shown_and_go_with_the_next_one(tmp_path: Path) -> None:
    written(tmp_path, inspection("old", time=NOW - 8 * DAY_S), days=30)
    assert names(kept(tmp_path)) == []
    assert names(kept(tmp_path, days=30)) == ["old"]
    written(tmp_path, inspection("new"))
    assert names(kept(tmp_path, days=30)) == ["new"]


def test_a_deleted_roi_is_forgotten_and_others_stay(tmp_path: Path) -> None:
    other = RoiKey("part", "back")
    written(tmp_path, inspection("a"))
    store = written(tmp_path, inspection("b"), key=other)
    store.forget(KEY)
    assert (names(store), names(store, key=other)) == ([], ["b"])


def test_nothing_is_kept_unless_it_is_asked_for(tmp_path: Path) -> None:
    assert names(written(tmp_path, inspection("a"), keeps=False)) == []
    assert list(tmp_path.iterdir()) == []


def test_a_damaged_database_is_replaced_and_logged(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "kept.sqlite3").write_bytes(b"no database at all" * 100)
    assert names(written(tmp_path, inspection("a"))) == ["a"]
    assert "the kept inspections are lost" in caplog.text
