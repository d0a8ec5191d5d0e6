"""Answer body of drift."""

from dataclasses import asdict
from typing import Any

from gateway.monitoring.drift.histogram import histogram
from gateway.process.services import Services
from gateway.store.roi_key import RoiKey


def drift_body(services: Services, key: RoiKey) -> dict[str, Any]:
    """Return the answer of `GET /rois/{role}/{roi}/drift`, as `DriftAnswer` describes it. Reads files.

    Raises:
        UnknownRoiError: the ROI was never fitted.
        ArtifactCorruptError: no version of the ROI is undamaged.
        NewerFormatError: a newer gateway wrote the version.
    """
    manifest, _ = services.store.served_manifest(key)
    calibration = services.store.calibration(key, manifest).calibration
    recent = services.recent_inspections.of(key, manifest)
    measured = services.drift.of(key, manifest, calibration)
    return {
        **asdict(key),
        "version": manifest.version,
        "window": services.settings.drift_window,
        **asdict(measured),
        "since": None if not len(recent) else float(recent.time[0]),
        "until": None if not len(recent) else float(recent.time[-1]),
        "histogram": asdict(histogram(recent, manifest)),
    }
