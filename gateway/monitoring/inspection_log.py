"""Record of every inspection: counters, the window for drift, and the request's log line."""

from dataclasses import asdict

from gateway.images.appearance import Look
from gateway.monitoring import metrics
from gateway.monitoring.drift.recent import RecentInspections
from gateway.monitoring.request_context import facts
from gateway.monitoring.timing import StageTimes
from gateway.store.manifest import Manifest
from gateway.store.roi_key import RoiKey
from postprocess.verdict import Verdict


class Watch:
    """Records inspections for the pipeline. Blocks for less than 0.3 ms."""

    def __init__(self, recent: RecentInspections, labels: metrics.RoiLabels) -> None:
        self._recent = recent
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
        """Record an inspection.

        Args:
            key: the inspected ROI.
            manifest: manifest of the version that answered.
            threshold: threshold of the score; None before calibration.
            score: score of the image.
            verdict: verdict of the image.
            looks: brightness and sharpness of the image.
            times: time spent in each stage.
            scored_otherwise: whether k, percentile or use of a shape differ from those of the OK images, so that the
                score is not comparable with theirs.
        """
        labels = self._labels.of(key)
        metrics.SCORES.labels(*labels).observe(score)
        metrics.VERDICTS.labels(*labels, verdict).inc()
        for stage, ms in times.ms.items():
            metrics.STAGE_SECONDS.labels(stage).observe(ms / 1e3)
        self._recent.add(
            key,
            manifest,
            score=score,
            threshold=threshold,
            verdict=verdict,
            look=looks,
            scored_alike=not scored_otherwise,
        )
        told = facts.get()
        if told is not None:
            told.setdefault("inspections", []).append(
                {
                    **asdict(key),
                    "version": manifest.version,
                    "score": round(score, 4),
                    "verdict": verdict,
                    "stages_ms": {stage: round(ms, 2) for stage, ms in times.ms.items()},
                }
            )
