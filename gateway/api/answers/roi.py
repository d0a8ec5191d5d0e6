"""Answer bodies about fitted ROIs."""

from dataclasses import asdict
from typing import Any

from gateway.api.recipe import RoiCaller
from gateway.api.schemas.rois import CalibrationSummary, ExcludedImageAnswer, RoiSummary, UnfittedRoi
from gateway.calibration.calibration_warnings import blind_area, blind_area_warning
from gateway.errors import ArtifactCorruptError, NewerFormatError, UnknownRoiError
from gateway.inspection.answer_warnings import WEIGHTS_STALE
from gateway.learning.suspects import find_suspects, robust_z
from gateway.monitoring.drift.measure import Signal
from gateway.process.services import Services
from gateway.store.artifact_store import ArtifactStore
from gateway.store.manifest import Calibration, Manifest, ScoreSummary
from gateway.store.roi_key import RoiKey


def roi_list_body(services: Services, caller: RoiCaller) -> dict[str, Any]:
    """Return the answer of `GET /rois`, as `RoiList` describes it: the ROIs that the caller may use. Reads files."""
    summaries, unfitted, unreadable = [], [], []
    only = caller.only()

    def asked(keys: list[RoiKey]) -> list[RoiKey]:
        return [key for key in keys if caller.sees(key) and only in (None, key.recipe_id)]

    for key in asked(services.store.rois()):
        try:
            manifest, calibration, damaged = _read(services.store, key)
        except UnknownRoiError:
            continue  # deleted since it was listed
        except (ArtifactCorruptError, NewerFormatError) as error:
            unreadable.append(error.message)
        else:
            alarms = services.drift.of(key, manifest, calibration, is_exact=False).alarms
            summaries.append(_summary(services, key, manifest, calibration, damaged, alarms).model_dump())
    for key in asked(services.store.unfitted()):
        try:
            labels = [record.label for record in services.store.images(key).records().stored]
        except NewerFormatError as error:
            unreadable.append(error.message)
        else:
            roi = UnfittedRoi(**asdict(key), n_ok=labels.count("ok"), n_ng=labels.count("ng"))
            unfitted.append(roi.model_dump())
    return {"rois": summaries, "unfitted": unfitted, "unreadable": unreadable}


def roi_body(services: Services, key: RoiKey) -> tuple[dict[str, Any], Manifest]:
    """Return the answer of `GET /rois/{role}/{roi}`, as `RoiDetail` describes it, and its manifest. Reads files.

    Raises:
        UnknownRoiError: the ROI was never fitted.
        ArtifactCorruptError: no version of the ROI is undamaged.
        NewerFormatError: a newer gateway wrote the version.
    """
    manifest, calibration, damaged = _read(services.store, key)
    scores = manifest.ok_scores or (None,) * len(manifest.images)
    z = robust_z(manifest.ok_scores).tolist() if manifest.ok_scores else [None] * len(manifest.images)
    suspects = {suspect.index for suspect in find_suspects(manifest.ok_scores)}
    alarms = services.drift.of(key, manifest, calibration).alarms
    detail = {
        **_summary(services, key, manifest, calibration, damaged, alarms).model_dump(),
        "covering_radius": manifest.covering_radius,
        "seed": manifest.seed,
        "heatmap_max": manifest.heatmap_max,
        "shape": _common_shape(manifest),
        "versions": [
            {
                "version": kept.version,
                "created_at": kept.created_at,
                "detector": kept.detector,
                "n_ok": len(kept.images),
                "n_embeddings": kept.n_embeddings,
                "current": kept.version == manifest.version,
            }
            for kept in services.store.manifests(key)
        ],
        "images": [
            {
                **image.model_dump(include={"sha256", "file_name", "width", "height", "added_in"}),
                "score": scores[i],
                "robust_z": z[i],
                "suspect": i in suspects,
            }
            for i, image in enumerate(manifest.images)
        ],
        "excluded_images": [
            image.model_dump(include=set(ExcludedImageAnswer.model_fields)) for image in manifest.excluded
        ],
    }
    return detail, manifest


def _common_shape(manifest: Manifest) -> str | None:
    shapes = {image.shape for image in manifest.images}
    return shapes.pop() if len(shapes) == 1 else None


def _read(store: ArtifactStore, key: RoiKey) -> tuple[Manifest, Calibration | None, list[str]]:
    """Return the manifest in use, its calibration, and what was found damaged."""
    manifest, damaged = store.served_manifest(key)
    stored = store.calibration(key, manifest)
    found = [*damaged, stored.damaged, *store.faults.degraded().get(key, {}).values()]
    return manifest, stored.calibration, list(dict.fromkeys(what for what in found if what))


def _summary(
    services: Services,
    key: RoiKey,
    manifest: Manifest,
    calibration: Calibration | None,
    damaged: list[str],
    alarms: tuple[Signal, ...],
) -> RoiSummary:
    stale = calibration is not None and calibration.is_stale(manifest)
    weights_stale = services.weighting.is_stale(key, manifest.spatial_weights)
    warnings = [f"damaged: {each}" for each in damaged]
    if calibration is not None:
        warnings += blind_area_warning(manifest, calibration)
        if stale:
            warnings.append(f"the threshold was calibrated for version {calibration.version}: calibrate again")
    if weights_stale:
        warnings.append(WEIGHTS_STALE)
    return RoiSummary(
        **asdict(manifest.key),
        version=manifest.version,
        created_at=manifest.created_at,
        detector=manifest.detector,
        n_ok_total=len(manifest.images),
        n_embeddings=manifest.n_embeddings,
        coreset_rate_applied=manifest.coreset_rate_applied,
        tiles=manifest.tiles,
        mm_per_px=manifest.mm_per_px,
        checksum=manifest.checksum,
        model_fingerprint=manifest.model_fingerprint,
        ok_scores=ScoreSummary.of(list(manifest.ok_scores)),
        n_ok_excluded=len(manifest.excluded),
        n_suspects=len(find_suspects(manifest.ok_scores)),
        spatial_weights=manifest.spatial_weights,
        weights_stale=weights_stale,
        blind_area_mm2=blind_area(manifest, calibration),
        calibration=None
        if calibration is None
        else CalibrationSummary(
            **calibration.model_dump(include=CalibrationSummary.model_fields.keys() - {"stale", "peak_threshold"}),
            peak_threshold=calibration.pixel_threshold,
            stale=stale,
        ),
        degraded=bool(damaged),
        drift_alarms=list(alarms),
        warnings=warnings,
    )
