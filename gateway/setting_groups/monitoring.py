"""Settings of what operators see: drift, kept inspections, metrics, logs and traces."""

from pathlib import Path
from typing import Literal

from pydantic import BaseModel, Field


class MonitoringSettings(BaseModel):
    """State, drift, metrics, logs and traces."""

    state_dir: Path = Field(Path(".state"), description="folder of recent scores for drift; for this host only")
    drift_window: int = Field(
        200, ge=50, le=100_000, description="recent inspections per ROI that drift is measured with"
    )
    keep_inspections: bool = Field(
        False, description="keep inspected images in GATEWAY_STATE_DIR, to review them on the page"
    )
    keep_inspections_bytes: int = Field(
        2**30, gt=0, description="limit of the images that are kept for review, of all ROIs together"
    )
    keep_inspections_days: int = Field(30, ge=1, le=36_500, description="days for which they are kept")
    metrics_max_rois: int = Field(
        100, ge=0, le=10_000, description="ROIs with metrics of their own; the others share the label `other`"
    )
    log_format: Literal["auto", "json", "console"] = Field("auto", description="auto: console on a terminal, else json")
    log_level: Literal["debug", "info", "warning", "error"] = Field("info", description="lowest level that is logged")
    otlp_endpoint: str | None = Field(
        None, description="collector of traces by OTLP over gRPC, such as http://collector:4317"
    )
