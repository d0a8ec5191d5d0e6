"""Metrics that are read when they are scraped: the state of each ROI on disk, drift, and the disk itself."""

import logging
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from prometheus_client.core import GaugeMetricFamily
from prometheus_client.registry import Collector

from gateway.errors import GatewayError
from gateway.monitoring.drift import MIN_SAMPLES, Drift, DriftLog, Signal, measure
from gateway.monitoring.metrics import OTHER, RoiLabels
from gateway.store.artifact_store import ArtifactStore
from gateway.store.manifest import Calibration, Manifest
from gateway.store.roi_key import RoiKey

log = logging.getLogger(__name__)

_LABELS = ("role_id", "roi_id")
_SIGNALS: tuple[Signal, ...] = ("score", "rejects", "brightness", "sharpness")


@dataclass(frozen=True, slots=True)
class _State:
    manifest: Manifest
    calibration: Calibration | None
    drift: Drift


class RoiCollector(Collector):
    """Reads the store; a manifest that was read before is not read again. Blocks: scrape from a worker thread."""

    def __init__(self, store: ArtifactStore, labels: RoiLabels, drift: DriftLog) -> None:
        self._store = store
        self._labels = labels
        self._drift = drift
        self._manifests: dict[RoiKey, tuple[str, Manifest]] = {}

    def collect(self) -> Iterator[GaugeMetricFamily]:
        """See prometheus_client's `Collector`."""
        states, n_fitted = self._states()
        yield _one("gateway_rois", "ROIs that are fitted", n_fitted)
        yield from _bank_metrics(states)
        yield from _calibration_metrics(states)
        yield from _drift_metrics(states)
        yield from self._disk()

    def describe(self) -> Iterator[GaugeMetricFamily]:
        """Names only: nothing is read when it is registered."""
        yield from ()

    def drift(self, key: RoiKey, manifest: Manifest, calibration: Calibration | None) -> Drift:
        """Of one ROI, now."""
        expected = None if calibration is None else calibration.expected_false_alarm_interval
        return measure(self._drift.recent(key, manifest), manifest, None if expected is None else expected[1])

    def _states(self) -> tuple[dict[tuple[str, str], _State], int]:
        """Of the ROIs with labels of their own, and how many ROIs there are."""
        n_fitted = 0
        states: dict[tuple[str, str], _State] = {}
        seen: dict[RoiKey, tuple[str, Manifest]] = {}
        for key in self._store.rois():
            try:
                ref = self._store.current(key)
                known = self._manifests.get(key)
                if known is None or known[0] != ref.manifest_sha256:
                    known = ref.manifest_sha256, self._store.served_manifest(key)[0]
                if known[1].version == ref.number:  # else that of an older version, until this one is whole again
                    seen[key] = known
                n_fitted += 1
                labels = self._labels.of(key)
                if labels != OTHER:
                    calibration = self._store.calibration(key, known[1]).calibration
                    states[labels] = _State(known[1], calibration, self.drift(key, known[1], calibration))
            except GatewayError as error:  # deleted since it was listed, or damaged: counted as a fault where it is met
                log.debug("not in this scrape: %s", error.message)
        self._manifests = seen
        return states, n_fitted

    def _disk(self) -> Iterator[GaugeMetricFamily]:
        folder = self._store.root
        while not folder.exists():
            folder = folder.parent
        usage = shutil.disk_usage(folder)
        yield _one("gateway_models_disk_free_bytes", "Free on the disk of the models folder", usage.free)
        yield _one("gateway_models_disk_size_bytes", "Of the disk of the models folder", usage.total)


def _one(name: str, text: str, value: float) -> GaugeMetricFamily:
    family = GaugeMetricFamily(name, text)
    family.add_metric((), value)
    return family


def _family(name: str, text: str, values: dict[tuple[str, ...], float | None], *more: str) -> GaugeMetricFamily:
    family = GaugeMetricFamily(name, text, labels=(*_LABELS, *more))
    for labels, value in values.items():
        if value is not None:
            family.add_metric(labels, value)
    return family


def _bank_metrics(states: dict[tuple[str, str], _State]) -> Iterator[GaugeMetricFamily]:
    manifests: dict[Any, Manifest] = {labels: state.manifest for labels, state in states.items()}
    yield _family("gateway_bank_version", "Version in use", {k: m.version for k, m in manifests.items()})
    yield _family(
        "gateway_bank_created_timestamp_seconds",
        "When the version in use was fitted, since 1970",
        {k: datetime.fromisoformat(m.created_at).timestamp() for k, m in manifests.items()},
    )
    yield _family("gateway_bank_tokens", "Tokens in the memory bank", {k: m.n_embeddings for k, m in manifests.items()})
    yield _family("gateway_bank_ok_images", "OK images learned", {k: len(m.images) for k, m in manifests.items()})


def _calibration_metrics(states: dict[tuple[str, str], _State]) -> Iterator[GaugeMetricFamily]:
    yield _family(
        "gateway_calibrated",
        "1 where the ROI has a threshold, else 0",
        {k: float(s.calibration is not None) for k, s in states.items()},
    )
    known = {k: (s.calibration, s.manifest) for k, s in states.items() if s.calibration is not None}
    yield _family(
        "gateway_calibration_stale",
        "1 where the threshold was made for another version, else 0",
        {k: float(c.is_stale(m)) for k, (c, m) in known.items()},
    )
    yield _family("gateway_threshold", "Scores above it are NG", {k: c.threshold for k, (c, _) in known.items()})


def _drift_metrics(states: dict[tuple[str, str], _State]) -> Iterator[GaugeMetricFamily]:
    drifts = {labels: state.drift for labels, state in states.items()}
    yield _family(
        "gateway_drift_samples", "Recent inspections that drift looks at", {k: d.n for k, d in drifts.items()}
    )
    yield _family(
        "gateway_drift_ks",
        "Two-sample Kolmogorov-Smirnov statistic, recent OK scores against the fit's leave-one-out scores",
        {k: d.ks for k, d in drifts.items()},
    )
    yield _family(
        "gateway_drift_ks_up",
        "Its one-sided part: recent scores lie higher",
        {k: d.ks_up for k, d in drifts.items()},
    )
    yield _family(
        "gateway_drift_above_threshold_ratio",
        "Share of recent scores above the threshold",
        {k: d.above_threshold for k, d in drifts.items()},
    )
    for name in ("brightness", "sharpness"):
        shifts = {k: getattr(d, name) for k, d in drifts.items()}
        yield _family(
            f"gateway_drift_{name}_shift",
            f"Mean {name} of recent images against the OK images, in standard deviations of these",
            {k: None if shift is None else shift.shift for k, shift in shifts.items()},
        )
    yield _family(
        "gateway_drift_alarm",
        "1 where the signal has drifted beyond what chance explains, else 0",
        {
            (*k, signal): float(signal in d.alarms)
            for k, d in drifts.items()
            if d.n >= MIN_SAMPLES
            for signal in _SIGNALS
        },
        "signal",
    )
