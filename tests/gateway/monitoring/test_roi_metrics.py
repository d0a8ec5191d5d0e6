"""Metrics of ROIs, scraped from a store of real files."""

from pathlib import Path

import pytest

from gateway.monitoring.drift.recent import RecentInspections
from gateway.monitoring.metrics import RoiLabels
from gateway.monitoring.roi_metrics import RoiCollector
from gateway.store.artifact_store import ArtifactStore
from tests.gateway.store.test_artifact_store import KEY, publish


@pytest.fixture
def store(tmp_path: Path) -> ArtifactStore:
    return ArtifactStore(tmp_path / "models", keep_versions=3)


def scraped(collector: RoiCollector) -> dict[str, float]:
    return {family.name: family.samples[0].value for family in collector.collect() if family.samples}


def test_a_repaired_version_is_scraped_again(store, tmp_path) -> None:
    collector = RoiCollector(store, RoiLabels(10), RecentInspections(tmp_path / "drift", 50))
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
    collector = RoiCollector(store, RoiLabels(10), RecentInspections(tmp_path / "drift", 50))
    publish(store, 1)
    before = scraped(collector)
    (store.version_folder(KEY, 1) / "manifest.json").unlink()
    assert scraped(collector)["gateway_bank_version"] == before["gateway_bank_version"]
