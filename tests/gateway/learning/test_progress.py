import logging

import pytest

from gateway.learning.progress import Progress


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
