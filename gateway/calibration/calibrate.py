"""Calibration of a stored ROI: which scores it uses, what is stored, and how it is redone after a fit."""

import math
from collections.abc import Sequence
from dataclasses import asdict, replace
from datetime import UTC, datetime
from typing import Any, Literal

import numpy as np

from gateway.calibration.calibration_warnings import (
    peak_rule_warnings,
    scale_warning,
    swap_warning,
    unscored_warning,
    warnings_by_score,
)
from gateway.calibration.false_alarms import either, false_alarms
from gateway.calibration.ok_scores import n_rejected, ok_peaks, ok_scores, ok_statistics
from gateway.calibration.peak_rule import choose_by_peak
from gateway.calibration.request import CalibrationRequest, Parameters, PixelThreshold
from gateway.calibration.review_band import with_review_band
from gateway.calibration.stored_evidence import EvidenceOf, StoredEvidence, finite, joined, with_shape
from gateway.calibration.threshold import choose_threshold
from gateway.errors import InvalidRequestError
from gateway.images.masks import mask_of
from gateway.settings import Settings
from gateway.store.artifact_store import ArtifactStore
from gateway.store.audit import Change
from gateway.store.manifest import CALIBRATION_FORMAT, PEAK_FORMAT, Calibration, Manifest, PixelThresholdSource
from gateway.store.ok_maps import OkMaps
from gateway.store.roi_key import RoiKey
from postprocess.regions import smallest_area_px
from postprocess.roi_mask import parse_shape


def calibrate(
    store: ArtifactStore,
    settings: Settings,
    key: RoiKey,
    request: CalibrationRequest,
    evidence_of: EvidenceOf | None = None,
) -> tuple[Manifest, Calibration, list[str]]:
    """Choose the thresholds of an ROI and store them. This blocks: call it from a worker thread.

    Args:
        store: the models folder.
        settings: the defaults.
        key: the ROI.
        request: the scores and parameters.
        evidence_of: scores the stored images with a version; None leaves them out.

    Returns:
        The version that was calibrated, the stored calibration, and warnings.

    Raises:
        UnknownRoiError: the ROI was never fitted.
        InvalidRequestError: there is no OK score, neither given nor from the fit; the request needs leave-one-out
            maps and the version has none; or the shape covers no pixel of an OK image.
    """
    store.current(key)
    with store.lock(key, settings.fit_lock_timeout_s):
        manifest, damaged = store.served_manifest(key, whole=True)
        evidence = None if evidence_of is None else evidence_of(manifest)
        calibration, warnings = derive(manifest, store.ok_maps(key, manifest), settings, request, evidence)
        if evidence_of is not None:
            warnings += unscored_warning(manifest, store.images(key).count())
        warnings += [f"damaged: {each}; calibrated for version {manifest.version}" for each in damaged]
        calibration = calibration.bound_to(manifest)
        with store.audit.change(key, _change(store, key, manifest, calibration)):
            store.set_calibration(key, manifest, calibration)
    return manifest, calibration, warnings


def _change(store: ArtifactStore, key: RoiKey, manifest: Manifest, calibration: Calibration) -> Change:
    n_ok = len(manifest.images)
    return Change(
        action="calibrate",
        version_before=manifest.version,
        version_after=manifest.version,
        threshold_before=store.threshold(key, manifest),
        threshold_after=calibration.threshold,
        n_ok_before=n_ok,
        n_ok_after=n_ok,
    )


def state_of(manifest: Manifest, calibration: Calibration | None) -> Literal["none", "current", "stale"]:
    """Return whether a version has a calibration that was made for it (current) or for another one (stale)."""
    if calibration is None:
        return "none"
    return "stale" if calibration.is_stale(manifest) else "current"


def derive(
    manifest: Manifest,
    ok_maps: OkMaps | None,
    settings: Settings,
    request: CalibrationRequest,
    evidence: StoredEvidence | None = None,
) -> tuple[Calibration, list[str]]:
    """Choose the thresholds of a version, without storing them.

    Args:
        manifest: manifest of the version, which may be unpublished.
        ok_maps: leave-one-out maps of the version, or None if it has none.
        settings: the defaults.
        request: the scores and parameters.
        evidence: the stored images, instead of scores in the request. Their OK images count beside those of the maps.

    Returns:
        The calibration, not yet bound to the version, and warnings.

    Raises:
        InvalidRequestError: as in `calibrate`.
    """
    parameters = Parameters.of(request, settings)
    if request.shape is not None:
        for size_wh in {image.frame.size_wh for image in manifest.images}:
            mask_of(request.shape, size_wh)  # refused where it covers no pixel
        ok_maps = None if ok_maps is None else with_shape(ok_maps, request.shape)
    resting: dict[str, Any] = {}
    if evidence is not None:
        evidence = evidence if request.shape is None else evidence.within(request.shape)
        min_area_px = smallest_area_px(parameters.area_mm2_thr, request.mm_per_px)
        stored = evidence.scores(parameters.percentile, parameters.blur_sigma, min_area_px)
        ng = [each for each in stored if each.label == "ng"]
        request = replace(
            request,
            ng_scores=[each.score for each in ng],
            ng_peaks=[-math.inf if each.peak is None else each.peak for each in ng],
        )
        if ok_maps is not None and evidence.ok_ids:
            ok_maps = joined(ok_maps, evidence.ok)
        resting = {"stored_images": True, "n_ok_unseen": len(evidence.ok_ids), "stored_scores": stored}
    if request.peak_threshold is not None and (ok_maps is None or not manifest.ok_scores):
        raise InvalidRequestError(
            f"peak_threshold: needs leave-one-out maps, and version {manifest.version} of {manifest.key} has none",
            "Fit two or more OK images, or send a number as pixel_threshold.",
        )
    if request.pixel_threshold == "peak" and ok_maps is not None and manifest.ok_scores:
        rate = settings.false_alarm_rate if request.false_alarm_rate is None else request.false_alarm_rate
        calibration, warnings = _by_peak(manifest, ok_maps, request, parameters, rate)
    else:
        calibration, warnings = _by_score(manifest, ok_maps, request, parameters)
    calibration = with_review_band(calibration, ok_maps, request, parameters)
    told = () if evidence is None else evidence.warnings
    return calibration.model_copy(update=resting), [*told, *warnings]


def _by_score(
    manifest: Manifest, ok_maps: OkMaps | None, request: CalibrationRequest, parameters: Parameters
) -> tuple[Calibration, list[str]]:
    """Choose the threshold of the score, and that of the regions beside it."""
    scores = request.ok_scores or _own_scores(manifest, ok_maps, parameters.percentile, request)
    chosen = choose_threshold(scores, request.ng_scores, parameters.margin, request.false_alarm_rate)
    if request.pixel_threshold == "ok_pixels" and ok_maps is None:
        raise InvalidRequestError(
            f"pixel_threshold: ok_pixels needs leave-one-out maps, and version {manifest.version} of "
            f"{manifest.key} has none",
            "Fit two or more OK images, or send a number.",
        )
    pixel_threshold = pixel_threshold_of(ok_maps, request, parameters.margin, parameters.blur_sigma, chosen.threshold)
    errs_high = manifest.ok_source == "leave-one-out"
    expected = false_alarms(chosen.ok_above, chosen.n_ok, err_high=errs_high and not request.ok_scores)
    verdict, n_above = None, 0
    if ok_maps is not None:
        n_above = n_rejected(
            ok_maps,
            threshold=chosen.threshold,
            pixel_threshold=pixel_threshold,
            percentile=parameters.percentile,
            blur_sigma=parameters.blur_sigma,
            mm_per_px=request.mm_per_px,
            area_mm2_thr=parameters.area_mm2_thr,
        )
        verdict = false_alarms(n_above, len(ok_maps.frames), err_high=errs_high)
    calibration = _calibration(
        manifest,
        request,
        parameters,
        **asdict(chosen),
        pixel_threshold=pixel_threshold,
        pixel_threshold_source=_source_of(request.pixel_threshold),
        false_alarm_rate=request.false_alarm_rate,
        guaranteed=None if chosen.n_ok_needed is None else chosen.n_ok_needed == 0 and bool(request.ok_scores),
        expected_false_alarm_rate=expected.rate,
        expected_false_alarm_interval=(expected.low, expected.high),
        verdict_false_alarm_rate=None if verdict is None else verdict.rate,
        verdict_false_alarm_interval=None if verdict is None else (verdict.low, verdict.high),
    )
    warnings = [*warnings_by_score(manifest, request.mm_per_px, calibration), *swap_warning(scores, request.ng_scores)]
    if ok_maps is not None and false_alarms(n_above, len(ok_maps.frames)).low > expected.rate:
        warnings.append(
            f"pixel_threshold: regions would reject {n_above} of {len(ok_maps.frames)} OK images, the score alone "
            f"is expected to reject {expected.rate:.1%}: raise area_mm2_thr, or set pixel_threshold to ok_pixels"
        )
    return calibration, warnings


def _by_peak(
    manifest: Manifest, ok_maps: OkMaps, request: CalibrationRequest, parameters: Parameters, rate: float
) -> tuple[Calibration, list[str]]:
    """Choose the thresholds by the peaks of the OK maps; see `gateway.calibration.peak_rule`."""
    min_area_px = smallest_area_px(parameters.area_mm2_thr, request.mm_per_px)
    scores, peaks = ok_statistics(ok_maps, parameters.percentile, parameters.blur_sigma, min_area_px)
    chosen = choose_by_peak(
        scores,
        peaks,
        margin=parameters.margin,
        false_alarm_rate=rate,
        given_scores=request.ok_scores,
        ng_scores=request.ng_scores,
        ng_peaks=request.ng_peaks,
        given=request.peak_threshold,
    )
    is_given = request.peak_threshold is not None
    of_score = false_alarms(chosen.ok_above, chosen.n_ok)
    of_verdict = false_alarms(chosen.n_rejected, len(peaks), n_limits=1 if request.ok_scores else chosen.n_limits)
    if request.ok_scores and chosen.n_limits > 1:
        # Scores of images that are not learned do not compare with those of the maps: they count by themselves.
        of_verdict = either(of_verdict, of_score)
    calibration = _calibration(
        manifest,
        request,
        parameters,
        format=CALIBRATION_FORMAT if is_given else PEAK_FORMAT,
        threshold=chosen.threshold,
        pixel_threshold=chosen.peak_threshold,
        pixel_threshold_source="given" if is_given else "peak",
        p99_ok=chosen.p99_ok,
        p5_ng=chosen.p5_ng,
        method=chosen.method,
        false_alarm_rate=None if is_given else rate,
        guaranteed=None if is_given else False,
        n_ok_needed=None if is_given else chosen.n_ok_needed,
        expected_false_alarm_rate=of_score.rate,
        expected_false_alarm_interval=(of_score.low, of_score.high),
        verdict_false_alarm_rate=of_verdict.rate,
        verdict_false_alarm_interval=(of_verdict.low, of_verdict.high),
        ok_peaks=tuple(sorted(level for level in peaks if math.isfinite(level))),
        n_ok=chosen.n_ok,
        n_ng=chosen.n_ng,
        ok_above=chosen.ok_above,
        ng_below=chosen.ng_below,
        missed_ng=chosen.missed_ng,
        learned_peaks=tuple(finite(peak) for peak in peaks[: len(manifest.images)]),
        separable=chosen.separable,
    )
    warnings = [
        *scale_warning(manifest, request.mm_per_px),
        *peak_rule_warnings(calibration, n_images=len(peaks)),
        *swap_warning(request.ok_scores or scores, request.ng_scores),
    ]
    return calibration, warnings


def _calibration(manifest: Manifest, request: CalibrationRequest, parameters: Parameters, **chosen: Any) -> Calibration:
    """Return a calibration with what was chosen, and with what both rules take from the request."""
    return Calibration(
        **chosen,
        mm_per_px=request.mm_per_px,
        area_mm2_thr=parameters.area_mm2_thr,
        score_percentile=parameters.percentile,
        k=manifest.k,
        shape=request.shape_json,
        blur_sigma=parameters.blur_sigma,
        ng_scores=tuple(request.ng_scores),
        ok_source="given" if request.ok_scores else manifest.ok_source,
        margin=parameters.margin,
        version=manifest.version,
        created_at=datetime.now(UTC).isoformat(timespec="milliseconds"),
    )


def _source_of(wish: PixelThreshold) -> PixelThresholdSource:
    """Return the source to store for a wish that the peaks of OK maps do not answer."""
    if not isinstance(wish, str):
        return "given"
    return "score" if wish == "peak" else wish


def redone(
    manifest: Manifest,
    ok_maps: OkMaps | None,
    settings: Settings,
    before: Calibration,
    evidence: StoredEvidence | None = None,
) -> Calibration | None:
    """Redo a calibration for another version of its ROI, by the same rule.

    Args:
        manifest: manifest of that version, which may be unpublished.
        ok_maps: leave-one-out maps of that version.
        settings: the defaults.
        before: the calibration so far.
        evidence: the stored images, scored with that version; used if the calibration so far rests on stored images.

    Returns:
        The thresholds for that version, not yet bound to it. None if the calibration rests on something that a client
        measured against the earlier bank: OK scores, NG scores or a given threshold.
    """
    if not before.rests_on_the_fit_alone or ok_maps is None or (before.n_ng and evidence is None):
        return None
    source = before.pixel_threshold_source
    request = CalibrationRequest(
        mm_per_px=before.mm_per_px,
        area_mm2_thr=before.area_mm2_thr,
        score_percentile=before.score_percentile,
        false_alarm_rate=before.false_alarm_rate,
        pixel_threshold="score" if source == "given" else source,
        margin=before.margin,
        blur_sigma=before.blur_sigma,
        shape=None if before.shape is None else parse_shape(before.shape)[0],
        shape_json=before.shape,
        review_rate=before.review_rate,
    )
    return derive(manifest, ok_maps, settings, request, evidence if before.stored_images else None)[0]


def _own_scores(
    manifest: Manifest, ok_maps: OkMaps | None, percentile: float, request: CalibrationRequest
) -> Sequence[float]:
    """Return the leave-one-out scores of a version for a percentile and a shape."""
    if not manifest.ok_scores:
        raise InvalidRequestError(
            f"ok_scores: missing, and {manifest.key} has no leave-one-out scores: "
            "its memory bank holds tokens of one OK image only",
            "Fit more OK images, or send the scores that /infer answers for OK images.",
        )
    n_unseen = 0 if ok_maps is None else len(ok_maps.frames) - len(manifest.images)
    if percentile == manifest.p_score and request.shape is None and not n_unseen:
        return manifest.ok_scores
    if ok_maps is None:
        field = "shape" if request.shape is not None else "score_percentile"
        raise InvalidRequestError(
            f"{field}: the scores of the fit are percentile {manifest.p_score:g} without a shape of this request, and "
            f"version {manifest.version} has no leave-one-out maps to compute others from",
            f"Send ok_scores made with this {field}, or leave {field} out.",
        )
    return ok_scores(ok_maps, percentile)


def pixel_threshold_of(
    ok_maps: OkMaps | None, request: CalibrationRequest, margin: float, blur_sigma: float, score_threshold: float
) -> float:
    """Return the threshold of regions.

    For `ok_pixels`, the rule of the score's threshold without NG is applied to the highest value of each blurred
    leave-one-out map, and the threshold is just above that value. An OK image then shows a region, however small, no
    more often than its score is rejected.

    Args:
        ok_maps: leave-one-out maps; needed for `ok_pixels` only.
        request: says which threshold is wanted.
        margin: see `choose_threshold`.
        blur_sigma: sigma of the blur, in pixels.
        score_threshold: threshold of the score.
    """
    wish = request.pixel_threshold
    if wish in ("peak", "score"):
        return score_threshold
    if not isinstance(wish, str):
        return wish
    assert ok_maps is not None
    level = choose_threshold(ok_peaks(ok_maps, blur_sigma), [], margin, request.false_alarm_rate).threshold
    # Regions begin at the threshold and are compared in float32: the image that set it must show none.
    return float(np.nextafter(np.float32(level), np.float32(math.inf)))
