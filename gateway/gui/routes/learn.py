"""``/fit_ok``, ``/calibrate_ng`` and ``/calibrate_dataset``."""

import functools
import math
from collections.abc import Sequence
from typing import Annotated, Any

import numpy as np
from fastapi import APIRouter, Form, Request, Response

from gateway.api.admitted_route import PlaceDep, admitted_by
from gateway.api.deps import ServicesDep
from gateway.api.disconnect import while_connected
from gateway.api.fields import OR_NULL, FormMmPerPx, FormRecipe, FormRoi, FormRole, OptionalImages
from gateway.api.inputs import image_file
from gateway.calibration.calibrate import calibrate
from gateway.calibration.request import CalibrationRequest
from gateway.errors import InvalidRequestError, TooLargeError
from gateway.gui.answers import answer
from gateway.gui.caller import GuiCallerDep
from gateway.gui.data_set import records
from gateway.gui.errors import NotFittedError, TooFewImagesError
from gateway.gui.routes.state import calibration_body
from gateway.gui.schemas import CalibrateDataset, CalibrateNg
from gateway.learning.request import FitRequest, ImageFile
from gateway.process.services import Services
from gateway.store.manifest import Calibration
from gateway.store.roi_key import RoiKey
from gateway.worker_threads import in_thread

fits = APIRouter(route_class=admitted_by(lambda services: services.fits, ignores_unknown=True))
router = APIRouter(route_class=admitted_by(lambda services: services.changes, ignores_unknown=True))

FEWEST_OK = 10
"""OK images that a data set needs for a fit."""
_EVERY_TOKEN = 1.0


@fits.post("/fit_ok")
async def fit_ok(
    request: Request,
    services: ServicesDep,
    gui: GuiCallerDep,
    place: PlaceDep,
    role_id: FormRole,
    roi_id: FormRoi,
    mm_per_px: FormMmPerPx,
    images: OptionalImages,
    memory_fit: Annotated[bool | None, OR_NULL, Form()] = False,
    use_dataset: Annotated[bool | None, OR_NULL, Form()] = False,
    recipe_id: FormRecipe = None,
) -> Response:
    """Learn the OK images of the request, or those of the data set."""
    key = gui.own(role_id, roi_id, recipe_id)
    settings = services.settings
    if bool(use_dataset) == bool(images):
        sent = "both were sent" if images else "neither was sent"
        raise InvalidRequestError(f"images: {sent}, images and use_dataset", "Send images, or use_dataset=true.")
    if len(images) > settings.max_fit_images:
        raise TooLargeError(f"images: {len(images)} in one request; the limit is {settings.max_fit_images}")
    if use_dataset:
        await in_thread(_require_enough, services, key, limiter=services.image_readers)
    rate = await in_thread(_rate, services, key, bool(memory_fit), limiter=services.image_readers)
    files = [image_file(upload, f"image {i}", settings) for i, upload in enumerate(images, 1)]
    memory = await _memory(services, key, None if use_dataset else files, rate)
    await in_thread(gui.scales.fix, key.recipe_id, mm_per_px, limiter=services.writers)
    with place.work(memory=memory + place.n_bytes):
        fit = FitRequest(key, files, mm_per_px, coreset_rate=rate, stored=bool(use_dataset))
        result = await while_connected(request, services.fitting.fit(fit))
    manifest = result.manifest
    return answer(
        key,
        {
            "n_embeddings": manifest.n_tokens_total,
            "coreset_size": manifest.n_embeddings,
            "token_shape": manifest.token_hw,
            "n_ok": len(manifest.images),
            "warnings": result.warnings,
        },
    )


def _require_enough(services: Services, key: RoiKey) -> None:
    n_ok = len(records(services, key, "ok"))
    if n_ok < FEWEST_OK:
        raise TooFewImagesError(f"{key}: the data set has {n_ok} OK images; a fit needs at least {FEWEST_OK}")


def _rate(services: Services, key: RoiKey, memory_fit: bool) -> float | None:
    """Return the coreset rate of a fit: 1, or None for that of the ROI; if that is 1, the one of the settings."""
    if memory_fit:
        return _EVERY_TOKEN
    latest = services.store.latest_manifest(key)
    was_every = latest is not None and latest[0].coreset_rate == _EVERY_TOKEN
    return services.settings.coreset_rate if was_every else None


async def _memory(services: Services, key: RoiKey, new: Sequence[ImageFile] | None, rate: float | None) -> int:
    try:
        return await services.fitting.memory_needed(key, new, rate)
    except TooLargeError as error:
        if rate != _EVERY_TOKEN:
            raise
        raise TooLargeError(f"memory_fit: {error.message}; fit without memory_fit, or with fewer images") from error


@router.post("/calibrate_ng")
async def calibrate_ng(services: ServicesDep, gui: GuiCallerDep, place: PlaceDep, body: CalibrateNg) -> Response:
    """Set the threshold from the images that the gateway has, learned and stored, OK and NG."""
    key = gui.own(body.role_id, body.roi_id, body.recipe_id)
    request = CalibrationRequest(body.mm_per_px, area_mm2_thr=body.area_mm2_thr, score_percentile=body.score_percentile)

    def work() -> dict[str, Any]:
        gui.scales.require(key.recipe_id, body.mm_per_px)
        calibration, warnings = _calibrated(services, key, request)
        ng_peaks = [each.peak for each in calibration.stored_scores if each.label == "ng" and each.peak is not None]
        return {
            **calibration_body(calibration),
            "ok_mean": _mean(body.ok_scores or calibration.ok_peaks),
            "ng_mean": _mean(body.ng_scores or ng_peaks),
            "warnings": warnings,
        }

    with place.work(key=key):
        return answer(key, await in_thread(work, limiter=services.writers))


@router.post("/calibrate_dataset")
async def calibrate_dataset(
    services: ServicesDep, gui: GuiCallerDep, place: PlaceDep, body: CalibrateDataset
) -> Response:
    """Set the threshold from the data set, with at least one NG image unless `require_ng` is false."""
    key = gui.own(body.role_id, body.roi_id, body.recipe_id)

    def work() -> dict[str, Any]:
        latest = services.store.latest_manifest(key)
        if latest is None:
            raise NotFittedError(key)
        if body.require_ng is not False and not records(services, key, "ng"):
            raise TooFewImagesError(f"{key}: the data set has no NG image, and require_ng asks for one")
        mm_per_px = gui.scales.of(key.recipe_id) or body.default_mm_per_px or latest[0].mm_per_px
        request = CalibrationRequest(mm_per_px, area_mm2_thr=body.area_mm2_thr, score_percentile=body.score_percentile)
        calibration, warnings = _calibrated(services, key, request)
        return {"status": "ok", **calibration_body(calibration), "warnings": warnings}

    with place.work(key=key):
        return answer(key, await in_thread(work, limiter=services.writers))


def _calibrated(services: Services, key: RoiKey, request: CalibrationRequest) -> tuple[Calibration, list[str]]:
    """Calibrate from the images of the ROI. Blocks."""
    if not services.store.is_fitted(key):
        raise NotFittedError(key)
    evidence_of = functools.partial(services.scorer.of_version, key)
    _, calibration, warnings = calibrate(services.store, services.settings, key, request, evidence_of)
    return calibration, warnings


def _mean(values: Sequence[float]) -> float:
    """Return the mean of the finite values; 0 without any, as the GUI reads a number."""
    finite = [value for value in values if math.isfinite(value)]
    return float(np.mean(finite)) if finite else 0.0
