"""What is kept of every inspection beside its answer: counts, the window for drift, and a line in the log."""

from gateway.images.appearance import Look
from gateway.monitoring import metrics
from gateway.monitoring.drift import DriftLog
from gateway.monitoring.request_context import facts
from gateway.monitoring.timing import StageTimes
from gateway.store.manifest import Manifest
from gateway.store.roi_key import RoiKey
from postprocess.verdict import Verdict


class Watch:
    """Told of every inspection by the pipeline. Blocks for less than 0.2 ms."""

    def __init__(self, drift: DriftLog, labels: metrics.RoiLabels) -> None:
        self._drift = drift
        self._labels = labels

    def inspected(
        self,
        key: RoiKey,
        manifest: Manifest,
        *,
        threshold: float | None,
        score: float,
        verdict: Verdict,
        looks: Look,
        times: StageTimes,
        scored_otherwise: bool = False,
    ) -> None:
        """Keep an inspection; `scored_otherwise`: its score does not compare with those of the OK images."""
        role_id, roi_id = self._labels.of(key)
        metrics.SCORES.labels(role_id, roi_id).observe(score)
        metrics.VERDICTS.labels(role_id, roi_id, verdict).inc()
        for stage, ms in times.ms.items():
            metrics.STAGE_SECONDS.labels(stage).observe(ms / 1e3)
        self._drift.add(
            key,
            manifest,
            score=score,
            threshold=threshold,
            verdict=verdict,
            looks=looks,
            scored_otherwise=scored_otherwise,
        )
        told = facts.get()
        if told is not None:
            told.setdefault("inspections", []).append(
                {
                    "role_id": key.role_id,
                    "roi_id": key.roi_id,
                    "version": manifest.version,
                    "score": round(score, 4),
                    "verdict": verdict,
                    "stages_ms": {stage: round(ms, 2) for stage, ms in times.ms.items()},
                }
            )
