"""Background tasks of a gateway process."""

import asyncio

from gateway import __version__
from gateway.errors import GatewayError
from gateway.monitoring import metrics
from gateway.process.services import Services

_REPORT_S = 2.0


async def warm(services: Services) -> None:
    """Load the versions that the previous process used last, with their networks."""
    for roi in await services.banks.warm():
        await roi.loaded.detector.engine(services.engines)


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
