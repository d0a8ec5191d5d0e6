"""Heatmaps are kept for the days that are asked for, and nothing else in their folder is touched."""

import asyncio
import os
import re
from datetime import date, datetime, timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from gateway.inspection.heatmap_files import HeatmapFiles
from gateway.process import background
from gateway.settings import Settings
from gateway.store.roi_key import RoiKey

TODAY = date(2026, 3, 15)
HEX = "0123456789abcdef" * 2


def put(folder: Path, days_ago: int, name: str = f"{HEX}.png", roi: str = "part/face") -> Path:
    path = folder / roi / (TODAY - timedelta(days=days_ago)).isoformat() / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b"png")
    return path


def test_heatmaps_are_removed_once_their_days_are_over(tmp_path: Path) -> None:
    kept = [put(tmp_path, days) for days in (0, 1, 7)]
    old = [put(tmp_path, days, roi=roi) for days in (8, 9, 4000) for roi in ("part/face", "part/back", "other/x")]
    assert HeatmapFiles(tmp_path).remove_old(7, TODAY) == len(old)
    assert [path for path in kept if not path.exists()] == []
    assert [path for path in old if path.parent.exists()] == []


def test_what_this_gateway_did_not_write_stays(tmp_path: Path) -> None:
    put(tmp_path, 30)
    others = [put(tmp_path, 30, name) for name in ("notes.txt", "overlay.png", f"{HEX}.jpg", f"{HEX[1:]}.png")]
    others += [
        tmp_path / "part/face" / f"{HEX}.png",
        tmp_path / f"{HEX}.png",
        tmp_path / "part/face/2026-3-1" / f"{HEX}.png",
    ]
    folder = put(tmp_path, 31).with_name(f"{HEX[::-1]}.png")
    folder.mkdir()
    for path in others:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"x")
    assert HeatmapFiles(tmp_path).remove_old(7, TODAY) == 2
    assert [path for path in (*others, folder) if not path.exists()] == []


@pytest.mark.parametrize("level", ["role", "roi", "day", "file"])
def test_no_link_is_followed_or_removed(tmp_path: Path, level: str) -> None:
    elsewhere, folder = tmp_path / "elsewhere", tmp_path / "heatmaps"
    target = put(elsewhere, 30)
    parts = target.relative_to(elsewhere).parts[: ["role", "roi", "day", "file"].index(level) + 1]
    link = folder.joinpath(*parts)
    link.parent.mkdir(parents=True)
    link.symlink_to(elsewhere.joinpath(*parts))
    assert HeatmapFiles(folder).remove_old(7, TODAY) == 0
    assert target.exists()
    assert link.is_symlink()


def test_old_heatmaps_of_every_recipe_are_removed(tmp_path: Path) -> None:
    old = [put(tmp_path, 30, roi=roi) for roi in ("part/a", ".recipes/winter/part/a", ".recipes/L%C3%ADnea/part/a")]
    kept = [put(tmp_path, 3, roi=".recipes/winter/part/a"), put(tmp_path, 30, roi=".other/winter/part/a")]
    assert HeatmapFiles(tmp_path).remove_old(7, TODAY) == 3
    assert not any(path.exists() for path in old)
    assert all(path.exists() for path in kept)


def test_a_folder_that_cannot_be_read_keeps_no_other_from_its_turn(tmp_path: Path, monkeypatch: Any) -> None:
    kept, removed = put(tmp_path, 30, roi="part/a"), put(tmp_path, 30, roi="part/b")
    unlink = os.unlink

    def refuse_the_first(name: str, **options: Any) -> None:
        if kept.exists() and os.path.samestat(os.fstat(options["dir_fd"]), kept.parent.stat()):
            raise PermissionError("not here")
        unlink(name, **options)

    monkeypatch.setattr(os, "unlink", refuse_the_first)
    assert HeatmapFiles(tmp_path).remove_old(7, TODAY) == 1
    assert kept.exists()
    assert not removed.exists()


def test_a_removal_ends_when_the_gateway_does(tmp_path: Path) -> None:
    kept = put(tmp_path, 30)
    assert HeatmapFiles(tmp_path).remove_old(7, TODAY, lambda: True) == 0
    assert kept.exists()


def test_what_is_written_has_the_names_that_are_removed(tmp_path: Path) -> None:
    files = HeatmapFiles(tmp_path)
    path = files.write(RoiKey("part", "face"), b"png")
    assert re.fullmatch(r"part/face/\d{4}-\d\d-\d\d/[0-9a-f]{32}\.png", path)
    assert files.remove_old(7, date.today() + timedelta(days=7)) == 0
    assert files.remove_old(7, date.today() + timedelta(days=9)) == 1
    assert not (tmp_path / path).exists()


@pytest.mark.parametrize(("keep_days", "stays"), [(None, True), (2, False), (60, True)])
def test_the_gateway_removes_them_at_its_start_and_daily(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, keep_days: int | None, stays: bool
) -> None:
    settings = Settings(_env_file=None, heatmap_dir=tmp_path, heatmap_keep_days=keep_days)
    month_ago = (datetime.now().date() - timedelta(days=30)).isoformat()

    def put_old() -> Path:
        path = tmp_path / "part/face" / month_ago / f"{HEX}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"png")
        return path

    async def run() -> None:
        slept: list[float] = []
        first = put_old()

        async def sleep(seconds: float) -> None:
            slept.append(seconds)
            assert first.exists() == stays
            if len(slept) == 2:
                raise asyncio.CancelledError
            put_old()

        monkeypatch.setattr(background.asyncio, "sleep", sleep)
        services: Any = SimpleNamespace(settings=settings)
        try:
            await background.remove_old_heatmaps(services, lambda: False)
        except asyncio.CancelledError:
            assert slept == [24 * 3600] * 2
        else:
            assert keep_days is None
            assert first.exists()

    asyncio.run(run())
