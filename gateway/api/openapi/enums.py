"""Names of the enums in the API document. A client generator makes one type of each."""

from typing import Any, Literal, get_args

from gateway.calibration.within_shape import ThresholdSource
from gateway.detectors.spatial_weighting import WeightsMode
from gateway.inspection.request import HeatmapMode
from gateway.learning.request import CalibrationState
from gateway.monitoring.drift.measure import Signal
from gateway.networks.model_description import WeightsKind
from gateway.store.audit import Action
from gateway.store.manifest import DetectorKind, Method, OkSource, PixelThresholdSource
from postprocess.verdict import Verdict, VerdictReason

ENUMS: dict[str, Any] = {
    "AuditAction": Action,
    "AuditOutcome": Literal["done", "failed", "unknown"],
    "CalibrationMethod": Method,
    "CalibrationState": CalibrationState,
    "DetectorKind": DetectorKind,
    "Device": Literal["cuda", "cpu"],
    "DriftSignal": Signal,
    "EngineKind": Literal["embedded", "triton"],
    "HeatmapMode": HeatmapMode,
    "ImageLabel": Literal["ok", "ng"],
    "ModelWeights": WeightsKind,
    "OkSource": OkSource,
    "PixelThresholdRule": Literal["peak", "score", "ok_pixels"],
    "PixelThresholdSource": PixelThresholdSource,
    "ReportFormat": Literal["html", "json"],
    "RollbackCalibrationState": Literal["none", "current", "stale"],
    "SpatialWeightsKind": Literal["none", "variance", "manual", "file"],
    "SpatialWeightsMode": WeightsMode,
    "ThresholdSource": ThresholdSource,
    "Verdict": Verdict,
    "VerdictReason": VerdictReason,
}
"""Enums by name. An enum that is not listed is named after its schema and property."""

_BY_VALUES = {frozenset(get_args(kind)): name for name, kind in ENUMS.items()}


def enum_name(values: list[str], schema: str, name: str) -> str:
    """Return the name of an enum.

    Args:
        values: its values.
        schema: name of the schema or operation that has it.
        name: its property or parameter.
    """
    known = _BY_VALUES.get(frozenset(values))
    return known or schema + "".join(word.capitalize() for word in name.split("_"))
