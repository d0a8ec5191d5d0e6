"""``/health``, ``/state`` and ``/manifest``."""

from typing import Any

from fastapi import APIRouter, Response

from gateway import __version__
from gateway.api.deps import ServicesDep
from gateway.api.fields import RoiId, RoleId
from gateway.api.responses import JsonResponse
from gateway.errors import GatewayError, UnknownRoiError
from gateway.gui.answers import answer, ids
from gateway.gui.caller import GuiCallerDep
from gateway.gui.data_set import listed
from gateway.gui.deciding import peak_limit
from gateway.gui.lenient_route import LenientRoute
from gateway.networks.model_description import EXTRACTOR
from gateway.process.services import Services
from gateway.store.manifest import Calibration
from gateway.store.roi_key import RoiKey
from gateway.worker_threads import in_thread

router = APIRouter(route_class=LenientRoute)


@router.get("/health")
async def health(services: ServicesDep, gui: GuiCallerDep) -> Response:
    """Say that the process is alive, and in `reason` why it cannot inspect, if it cannot."""
    status = services.engine.status
    try:
        model = services.engine.model.extractor
    except GatewayError:
        model = EXTRACTOR
    body = {"status": "ok", "device": services.engine.device, "model": model, "version": __version__}
    if not status.ready:
        body["reason"] = status.reason or "not ready"
    return JsonResponse({**body, **ids(gui.recipe())})


@router.get("/state")
async def state(
    services: ServicesDep, gui: GuiCallerDep, role_id: RoleId, roi_id: RoiId, model_key: str | None = None
) -> Response:
    """Say whether an ROI has a memory bank and a calibration."""
    key = await gui.fitted(gui.own(role_id, roi_id))
    is_fitted, calibration = await in_thread(_bank, services, key, limiter=services.image_readers)
    return answer(
        key,
        {
            "status": "ok",
            "memory_fitted": is_fitted,
            "calib_present": calibration is not None,
            "role_id": key.role_id,
            "roi_id": key.roi_id,
            "model_key": model_key or key.roi_id,
        },
    )


@router.get("/manifest")
async def manifest(services: ServicesDep, gui: GuiCallerDep, role_id: RoleId, roi_id: RoiId) -> Response:
    """Say the same, with the calibration itself and the data set. `datasets` may be of another recipe than the bank."""
    own = gui.own(role_id, roi_id)
    images = await gui.with_images(own)
    key = await gui.fitted(own)

    def work() -> dict[str, Any]:
        is_fitted, calibration = _bank(services, key)
        return {
            "role_id": key.role_id,
            "roi_id": key.roi_id,
            "memory": is_fitted,
            "calib": None if calibration is None else calibration_body(calibration),
            "datasets": {**listed(services, images), "recipe_id": images.recipe_id},
        }

    return answer(key, await in_thread(work, limiter=services.image_readers))


def calibration_body(calibration: Calibration) -> dict[str, Any]:
    """Return a calibration as the GUI reads it. The threshold is that of the criterion that decides: the peak."""
    return {
        "threshold": peak_limit(calibration.pixel_threshold),
        "score_percentile": round(calibration.score_percentile),
        "area_mm2_thr": calibration.area_mm2_thr,
        "mm_per_px": calibration.mm_per_px,
        "n_ok": calibration.n_ok,
        "n_ng": calibration.n_ng,
        "false_alarm_rate": calibration.verdict_false_alarm_rate,
        "created_at_utc": calibration.created_at,
    }


def _bank(services: Services, key: RoiKey) -> tuple[bool, Calibration | None]:
    try:
        served, _ = services.store.served_manifest(key)
    except UnknownRoiError:
        return False, None
    return True, services.store.calibration(key, served).calibration
