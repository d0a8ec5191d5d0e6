"""Metrics that are read at the scrape: the state of each ROI on disk, drift, and disk space."""

import logging
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from prometheus_client.core import GaugeMetricFamily
from prometheus_client.registry import Collector

from gateway.errors import GatewayError
from gateway.monitoring.drift.measure import MIN_SAMPLES, SIGNALS, Drift, Signal
from gateway.monitoring.drift.watch import DriftWatch
from gateway.monitoring.metrics import OTHER, ROI_LABELS, RoiLabels
from gateway.monitoring.storage import write_problem
from gateway.store.artifact_store import ArtifactStore
from gateway.store.manifest import Calibration, Manifest
from gateway.store.roi_key import RoiKey

log = logging.getLogger(__name__)

_Labels = tuple[str, str, str]
"""Values of `ROI_LABELS`."""


@dataclass(frozen=True, slots=True)
class _State:
    manifest: Manifest
    calibration: Calibration | None
    drift: Drift
    n_stored: int


class RoiCollector(Collector):
    """Reads the store at a scrape, each manifest once. It blocks, so scrape from a worker thread."""

    def __init__(self, store: ArtifactStore, labels: RoiLabels, drift: DriftWatch) -> None:
        self._store = store
        self._labels = labels
        self._drift = drift
        self._manifests: dict[RoiKey, tuple[str, Manifest]] = {}

    def collect(self) -> Iterator[GaugeMetricFamily]:
        """Yield the metrics of all ROIs and of the disk."""
        states, others, n_fitted = self._states()
        yield _one("gateway_rois", "Fitted ROIs", n_fitted)
        yield from _bank_metrics(states)
        yield from _calibration_metrics(states)
        yield from _drift_metrics(states)
        yield _drift_alarms(states, others)
        yield from self._disk()

    def describe(self) -> Iterator[GaugeMetricFamily]:
        """Yield nothing, so that registration reads no file."""
        yield from ()

    def _states(self) -> tuple[dict[_Labels, _State], list[Drift], int]:
        """Return the states of the ROIs with labels of their own, the drift of all others, and the number of ROIs."""
        n_fitted = 0
        others: list[Drift] = []
        states: dict[_Labels, _State] = {}
        seen: dict[RoiKey, tuple[str, Manifest]] = {}
        for key in self._rois():
            try:
                ref = self._store.current(key)
                known = self._manifests.get(key)
                if known is None or known[0] != ref.manifest_sha256:
                    known = ref.manifest_sha256, self._store.served_manifest(key)[0]
                if known[1].version == ref.number:  # else an older version answers, until the current one is repaired
                    seen[key] = known
                n_fitted += 1
                labels = self._labels.of(key)
                calibration = self._store.calibration(key, known[1]).calibration
                drift = self._drift.of(key, known[1], calibration, is_exact=labels != OTHER)
                if labels == OTHER:
                    others.append(drift)
                else:
                    states[labels] = _State(known[1], calibration, drift, self._store.images(key).count())
            except GatewayError as error:  # deleted since it was listed, or damaged, which is counted elsewhere
                log.debug("skipped in this scrape: %s", error.message)
        self._manifests = seen
        return states, others, n_fitted

    def _rois(self) -> list[RoiKey]:
        try:
            return self._store.rois()
        except GatewayError as error:
            log.warning("no ROI in this scrape: %s", error.message)
            return []

    def _disk(self) -> Iterator[GaugeMetricFamily]:
        yield _one(
            "gateway_models_writable",
            "1 if the models folder accepts writes, else 0: nothing can be learned or calibrated",
            float(write_problem(self._store) is None),
        )
        space = self._store.storage.disk_space()
        if space is not None:
            yield _one("gateway_models_disk_free_bytes", "Free space on the disk of the models folder", space.free)
            yield _one("gateway_models_disk_size_bytes", "Size of the disk of the models folder", space.size)


def _one(name: str, text: str, value: float) -> GaugeMetricFamily:
    family = GaugeMetricFamily(name, text)
    family.add_metric((), value)
    return family


def _family(name: str, text: str, values: dict[tuple[str, ...], float | None], *more: str) -> GaugeMetricFamily:
    family = GaugeMetricFamily(name, text, labels=(*ROI_LABELS, *more))
    for labels, value in values.items():
        if value is not None:
            family.add_metric(labels, value)
    return family


def _bank_metrics(states: dict[_Labels, _State]) -> Iterator[GaugeMetricFamily]:
    manifests: dict[Any, Manifest] = {labels: state.manifest for labels, state in states.items()}
    yield _family("gateway_bank_version", "Version in use", {k: m.version for k, m in manifests.items()})
    yield _family(
        "gateway_bank_created_timestamp_seconds",
        "Time when the version in use was fitted, in seconds since 1970",
        {k: datetime.fromisoformat(m.created_at).timestamp() for k, m in manifests.items()},
    )
    yield _family("gateway_bank_tokens", "Tokens in the memory bank", {k: m.n_embeddings for k, m in manifests.items()})
    yield _family("gateway_bank_ok_images", "Learned OK images", {k: len(m.images) for k, m in manifests.items()})
    yield _family("gateway_stored_images", "Stored images, OK and NG", {k: s.n_stored for k, s in states.items()})


def _calibration_metrics(states: dict[_Labels, _State]) -> Iterator[GaugeMetricFamily]:
    yield _family(
        "gateway_calibrated",
        "1 if the ROI has a threshold, else 0",
        {k: float(s.calibration is not None) for k, s in states.items()},
    )
    known = {k: (s.calibration, s.manifest) for k, s in states.items() if s.calibration is not None}
    yield _family(
        "gateway_calibration_stale",
        "1 if the threshold was made for another version, else 0",
        {k: float(c.is_stale(m)) for k, (c, m) in known.items()},
    )
    yield _family(
        "gateway_threshold",
        "Threshold of the score; higher scores are NG",
        {k: c.threshold for k, (c, _) in known.items()},
    )


def _drift_metrics(states: dict[_Labels, _State]) -> Iterator[GaugeMetricFamily]:
    drifts = {labels: state.drift for labels, state in states.items()}
    yield _family(
        "gateway_drift_samples", "Recent inspections in the drift window", {k: d.n for k, d in drifts.items()}
    )
    yield _family(
        "gateway_drift_ks",
        "Two-sample Kolmogorov-Smirnov statistic of recent OK scores and the fit's leave-one-out scores",
        {k: d.ks for k, d in drifts.items()},
    )
    yield _family(
        "gateway_drift_ks_up",
        "One-sided Kolmogorov-Smirnov statistic: recent scores are higher",
        {k: d.ks_up for k, d in drifts.items()},
    )
    yield _family(
        "gateway_drift_above_threshold_ratio",
        "Share of recent scores above the threshold",
        {k: d.above_threshold for k, d in drifts.items()},
    )
    yield _family(
        "gateway_drift_rejected_ratio",
        "Share of recent inspections judged NG, by score or by region",
        {k: d.rejected for k, d in drifts.items()},
    )
    for name in ("brightness", "sharpness"):
        shifts = {k: getattr(d, name) for k, d in drifts.items()}
        yield _family(
            f"gateway_drift_{name}_shift",
            f"Difference of the mean {name} of recent images and of OK images, in standard deviations of the OK images",
            {k: None if shift is None else shift.shift for k, shift in shifts.items()},
        )


def _drift_alarms(states: dict[_Labels, _State], others: list[Drift]) -> GaugeMetricFamily:
    """Return the alarms. ROIs without labels of their own share one series, which is 1 if any of them has an alarm."""
    by_labels: dict[_Labels, list[Drift]] = {labels: [state.drift] for labels, state in states.items()}
    alarms: dict[tuple[str, ...], float | None] = {}
    for labels, drifts in (by_labels | {OTHER: others}).items():
        measured = [drift for drift in drifts if drift.n >= MIN_SAMPLES]
        raised: set[Signal] = {signal for drift in measured for signal in drift.alarms}
        alarms |= {(*labels, signal): float(signal in raised) for signal in SIGNALS if measured}
    return _family(
        "gateway_drift_alarm",
        "1 if chance does not explain the drift of the signal, else 0; `other`: of any ROI without labels of its own",
        alarms,
        "signal",
    )
