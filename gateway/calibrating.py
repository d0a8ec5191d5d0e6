"""Calibration of a stored ROI: which scores count, what is kept."""

from collections.abc import Sequence
from dataclasses import asdict
from datetime import UTC, datetime

from gateway.calibration import choose_threshold
from gateway.errors import InvalidRequestError
from gateway.roi_key import RoiKey
from gateway.settings import Settings
from gateway.storage import ArtifactStore, Calibration


def calibrate(
    store: ArtifactStore,
    settings: Settings,
    key: RoiKey,
    *,
    ok_scores: Sequence[float],
    ng_scores: Sequence[float],
    mm_per_px: float,
    area_mm2_thr: float | None,
    score_percentile: float | None,
) -> tuple[Calibration, list[str]]:
    """Choose a threshold and store it. Blocks: call it from a worker thread.

    Args:
        store: where the ROI is.
        settings: defaults.
        key: the ROI.
        ok_scores: of unseen OK images; empty takes the leave-one-out scores of the fit.
        ng_scores: of NG images.
        mm_per_px: of the images scored.
        area_mm2_thr: regions smaller than this are dropped by `/infer` from now on.
        score_percentile: that the scores were made with.

    Returns:
        What was stored, and warnings.

    Raises:
        UnknownRoiError: never fitted.
        InvalidRequestError: no OK score, given or from the fit.
    """
    store.current(key)
    with store.lock(key, settings.fit_lock_timeout_s):
        manifest = store.manifest(key, store.current(key))
        warnings = []
        if abs(mm_per_px - manifest.mm_per_px) > 0.01 * manifest.mm_per_px:
            warnings.append(f"mm_per_px: {mm_per_px:g} here, {manifest.mm_per_px:g} at the fit")
        percentile = score_percentile if score_percentile is not None else settings.p_score
        scores = ok_scores or manifest.ok_scores
        if not scores:
            raise InvalidRequestError(
                f"ok_scores: none was given, and {key} has learned from one OK image only, which leaves none to score",
                "Fit more OK images, or give the scores that /infer answers for OK images.",
            )
        if not ok_scores and percentile != manifest.p_score:
            raise InvalidRequestError(
                f"score_percentile: {percentile:g}, but the scores of the fit are percentile {manifest.p_score:g}",
                "Give ok_scores made with this percentile, or leave score_percentile out.",
            )
        chosen = choose_threshold(scores, ng_scores, settings.threshold_margin)
        calibration = Calibration(
            **asdict(chosen),
            mm_per_px=mm_per_px,
            area_mm2_thr=area_mm2_thr if area_mm2_thr is not None else settings.area_mm2_thr,
            score_percentile=percentile,
            ok_source="given" if ok_scores else "leave-one-out",
            margin=settings.threshold_margin,
            version=manifest.version,
            bank_checksum=manifest.checksum,
            created_at=datetime.now(UTC).isoformat(timespec="milliseconds"),
        )
        store.set_calibration(key, calibration)
    return calibration, warnings
