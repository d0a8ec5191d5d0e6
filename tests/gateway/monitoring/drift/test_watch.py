"""Drift of many ROIs: when it is measured, and what is logged."""

import pytest

from gateway.images.appearance import Look
from gateway.monitoring.drift import watch as watch_module
from gateway.monitoring.drift.recent import RecentInspections
from gateway.monitoring.drift.watch import DriftWatch, expected_rejects
from tests.gateway.monitoring.drift.test_measure import KEY, manifest, scores
from tests.gateway.store.test_artifact_store import calibration

LEARNED = manifest(scores(0.45, 60, 0))
BRIGHT, NORMAL = Look(160.0, 0.1), Look(100.0, 0.1)


def add(recent: RecentInspections, look: Look, n: int) -> None:
    for score in scores(0.45, n, 1):
        recent.add(KEY, LEARNED, score=score, threshold=0.6, verdict="ok", look=look)


@pytest.fixture
def recent(tmp_path) -> RecentInspections:
    return RecentInspections(tmp_path, 100)


def test_an_alarm_is_logged_with_its_roi_when_it_starts_and_when_it_ends(recent, caplog) -> None:
    caplog.set_level("INFO")
    watch = DriftWatch(recent, 100)
    add(recent, BRIGHT, 100)
    for _ in range(3):
        assert watch.of(KEY, LEARNED, None).alarms == ("brightness",)
    add(recent, NORMAL, 100)
    assert watch.of(KEY, LEARNED, None).alarms == ()
    assert [record.message for record in caplog.records if "drift alarm" in record.message] == [
        "steel/drift: drift alarm: brightness",
        "steel/drift: drift alarm ended: brightness",
    ]


def test_drift_is_measured_again_only_after_new_inspections(recent, monkeypatch) -> None:
    measured = []
    measure = watch_module.measure
    monkeypatch.setattr(watch_module, "measure", lambda *args: measured.append(1) or measure(*args))
    watch = DriftWatch(recent, 100)
    add(recent, NORMAL, 60)
    for _ in range(3):
        watch.of(KEY, LEARNED, None)
    assert len(measured) == 1
    add(recent, NORMAL, 4)
    assert watch.of(KEY, LEARNED, None, is_exact=False).n == 60  # a twentieth of the window is 5
    add(recent, NORMAL, 1)
    assert watch.of(KEY, LEARNED, None, is_exact=False).n == 65
    add(recent, NORMAL, 1)
    assert watch.of(KEY, LEARNED, None).n == 66
    other = manifest(scores(0.45, 60, 0), bank="b" * 64)
    assert watch.of(KEY, other, None).n == 0  # another version


def test_inspections_that_are_not_recorded_are_a_reason(tmp_path) -> None:
    (tmp_path / "file").write_text("")
    recent = RecentInspections(tmp_path / "file", 100)
    add(recent, NORMAL, 1)
    reason = DriftWatch(recent, 100).of(KEY, LEARNED, None).reason
    assert reason is not None
    assert "inspections are not recorded" in reason


def test_a_deleted_roi_starts_without_alarm(recent) -> None:
    watch = DriftWatch(recent, 100)
    add(recent, BRIGHT, 60)
    assert watch.of(KEY, LEARNED, None).alarms == ("brightness",)
    watch.forget(KEY)
    assert (watch.of(KEY, LEARNED, None).n, watch.of(KEY, LEARNED, None).alarms) == (0, ())


def test_the_expected_rejects_are_those_of_score_and_region_together() -> None:
    made = calibration(1)
    by_score = made.model_copy(update={"expected_false_alarm_interval": (0.0, 0.05)})
    assert expected_rejects(None) is None
    assert expected_rejects(by_score.model_copy(update={"verdict_false_alarm_interval": None})) == 0.05
    assert expected_rejects(by_score.model_copy(update={"verdict_false_alarm_interval": (0.0, 0.2)})) == 0.2
