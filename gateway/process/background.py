"""Background tasks of a gateway process."""

import asyncio
import logging
from collections.abc import Callable
from contextlib import suppress
from datetime import datetime

from anyio import to_thread

from gateway import __version__
from gateway.errors import GatewayError
from gateway.inspection.heatmap_files import HeatmapFiles
from gateway.monitoring import metrics
from gateway.process.services import Services

log = logging.getLogger(__name__)

_REPORT_S = 2.0
_DAY_S = 24 * 3600


async def prepare_storage(services: Services) -> None:
    """Check that the storage can be used. One that does not answer is checked before the first change.

    Raises:
        UnsuitableStorageError: it cannot be used.
    """
    try:
        await to_thread.run_sync(services.store.storage.prepare)
    except GatewayError as error:
        log.warning("nothing can be learned or calibrated yet: %s", error.message)


async def warm(services: Services) -> None:
    """Load the versions that the previous process used last, with their networks."""
    for roi in await services.banks.warm():
        with suppress(GatewayError):  # the next inspection says why
            await roi.loaded.detector.engine(services.engines)


async def remove_old_heatmaps(services: Services, stop: Callable[[], bool]) -> None:
    """Remove the heatmaps that are older than GATEWAY_HEATMAP_KEEP_DAYS: at once, then daily, until cancelled.

    Args:
        services: of this gateway.
        stop: whether to end a removal that goes on.
    """
    settings = services.settings
    if settings.heatmap_dir is None or settings.heatmap_keep_days is None:
        return
    files = HeatmapFiles(settings.heatmap_dir)
    while True:
        today = datetime.now().astimezone().date()
        try:
            await to_thread.run_sync(files.remove_old, settings.heatmap_keep_days, today, stop)
        except OSError as error:
            log.warning("old heatmaps are not removed: %s", error)
        await asyncio.sleep(_DAY_S)


async def report_state(services: Services) -> None:
    """Update the gauges that no request changes, until cancelled."""
    reported: tuple[str, ...] = ()
    while True:
        status = services.engine.status
        metrics.ENGINE_READY.set(float(status.ready))
        try:
            model = services.engine.model
        except GatewayError:
            fingerprint, weights = "none", "none"
        else:
            fingerprint, weights = model.fingerprint[:16], model.weights.kind
        now = (__version__, services.settings.engine, status.runtime, fingerprint, weights)
        if now != reported:
            if reported:
                metrics.BUILD.labels(*reported).set(0)  # values shared by workers cannot be removed
            metrics.BUILD.labels(*now).set(1)
            reported = now
        await asyncio.sleep(_REPORT_S)
