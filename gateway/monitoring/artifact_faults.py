"""Damaged artifacts, counted for Prometheus."""

from gateway.monitoring import metrics
from gateway.store.damage import ArtifactFaults


def counted_faults() -> ArtifactFaults:
    """Return a record of faults that counts them in the gateway's metrics."""
    return ArtifactFaults(lambda kind: metrics.ARTIFACT_FAULTS.labels(kind).inc(), metrics.DEGRADED.set)
