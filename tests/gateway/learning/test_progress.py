import logging

import pytest

from gateway.learning.progress import FitsInProgress, Progress
from gateway.store.roi_key import RoiKey


def test_progress_is_logged_every_few_seconds(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    now = [100.0]
    monkeypatch.setattr("gateway.learning.progress.time.monotonic", lambda: now[0])
    with caplog.at_level(logging.INFO, "gateway.learning.progress"):
        progress = Progress("part/face: read %d of %d images", 30)
        for _ in range(4):
            now[0] += 2
            progress.add(8)
    assert [record.message for record in caplog.records] == ["part/face: read 24 of 30 images"]


def test_a_quick_fit_logs_no_progress(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, "gateway.learning.progress"):
        Progress("read %d of %d images", 2).add(2)
    assert caplog.records == []


def test_a_running_fit_says_its_stage_and_how_far_it_is() -> None:
    fits, key = FitsInProgress(), RoiKey("part", "face")

    def now() -> tuple[str, int, int]:
        running = fits.of(key)
        assert running is not None
        return running.stage, running.done, running.total

    assert fits.of(key) is None
    with fits.begin(key) as times:
        assert now() == ("wait", 0, 0)
        progress = Progress("read %d of %d images", 30, times, "engine")
        with times.stage("engine"), times.stage("decode"):  # decoding runs beside the network
            progress.add(8)
        assert now() == ("engine", 8, 30)
        with times.stage("store"), fits.begin(key):  # another one waits for the first
            assert now() == ("store", 0, 0)
    assert fits.of(key) is None
