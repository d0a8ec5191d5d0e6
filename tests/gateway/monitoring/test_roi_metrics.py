"""Metrics of ROIs, scraped from a store of real files."""

from pathlib import Path

import pytest

from gateway.detectors.memory_bank.detector import bank_files
from gateway.images.appearance import Look
from gateway.monitoring.drift.recent import RecentInspections
from gateway.monitoring.drift.watch import DriftWatch
from gateway.monitoring.metrics import RoiLabels
from gateway.monitoring.roi_metrics import RoiCollector
from gateway.store.artifact_store import ArtifactStore
from gateway.store.manifest import Manifest
from gateway.store.roi_key import RoiKey
from tests.gateway.store.test_artifact_store import KEY, bank_of, manifest_of, publish


@pytest.fixture
def store(tmp_path: Path) -> ArtifactStore:
    return ArtifactStore(tmp_path / "models", keep_versions=3)


def scraped(collector: RoiCollector) -> dict[str, float]:
    return {family.name: family.samples[0].value for family in collector.collect() if family.samples}


def test_a_repaired_version_is_scraped_again(store, tmp_path) -> None:
    collector = RoiCollector(store, RoiLabels(10), DriftWatch(RecentInspections(tmp_path / "drift", 50), 50))
    publish(store, 1)
    publish(store, 2)
    manifest = store.version_folder(KEY, 2) / "manifest.json"
    whole = manifest.read_bytes()
    manifest.write_bytes(b"x")
    assert scraped(collector)["gateway_bank_version"] == 1
    manifest.write_bytes(whole)
    found = scraped(collector)
    assert (found["gateway_bank_version"], found["gateway_rois"]) == (2, 1)


def test_a_manifest_is_read_once_for_all_scrapes(store, tmp_path) -> None:
    collector = RoiCollector(store, RoiLabels(10), DriftWatch(RecentInspections(tmp_path / "drift", 50), 50))
    publish(store, 1)
    before = scraped(collector)
    (store.version_folder(KEY, 1) / "manifest.json").unlink()
    assert scraped(collector)["gateway_bank_version"] == before["gateway_bank_version"]


def publish_roi(store: ArtifactStore, key: RoiKey) -> Manifest:
    with store.lock(key, 5):
        bank = bank_of(1)
        ids = {"role_id": key.role_id, "roi_id": key.roi_id, "ok_scores": (0.1, 0.11, 0.12) * 20}
        manifest = manifest_of(store.next_version(key), bank).model_copy(update=ids)
        store.publish(key, manifest, bank_files(bank, manifest))
    return store.served_manifest(key)[0]


def test_an_roi_without_labels_of_its_own_alarms_under_other(store, tmp_path) -> None:
    """ROIs beyond the limit share one series. The log and GET /rois name them."""
    recent = RecentInspections(tmp_path / "drift", 100)
    keys = [RoiKey("steel", f"r{i}") for i in range(3)]
    for key in keys:
        manifest = publish_roi(store, key)
        for i in range(60):
            score = 0.9 if key == keys[2] else 0.1 + i % 3 / 100
            recent.add(key, manifest, score=score, threshold=None, verdict="uncalibrated", look=Look(1.0, 1.0))

    def alarms(limit: int) -> dict[tuple[str, str], float]:
        collector = RoiCollector(store, RoiLabels(limit), DriftWatch(recent, 100))
        (family,) = [each for each in collector.collect() if each.name == "gateway_drift_alarm"]
        return {
            (sample.labels["role_id"], sample.labels["roi_id"]): sample.value
            for sample in family.samples
            if sample.labels["signal"] == "score"
        }

    assert alarms(10) == {("steel", "r0"): 0, ("steel", "r1"): 0, ("steel", "r2"): 1}
    assert alarms(2) == {("steel", "r0"): 0, ("steel", "r1"): 0, ("other", "other"): 1}
    assert alarms(0) == {("other", "other"): 1}


def test_a_models_folder_that_accepts_no_writes_is_scraped_as_such(store, tmp_path, monkeypatch) -> None:
    collector = RoiCollector(store, RoiLabels(10), DriftWatch(RecentInspections(tmp_path / "drift", 50), 50))
    assert scraped(collector)["gateway_models_writable"] == 1
    (tmp_path / "file").write_text("")
    blocked = ArtifactStore(tmp_path / "file" / "models", keep_versions=3)
    collector = RoiCollector(blocked, RoiLabels(10), DriftWatch(RecentInspections(tmp_path / "drift", 50), 50))
    assert scraped(collector)["gateway_models_writable"] == 0
