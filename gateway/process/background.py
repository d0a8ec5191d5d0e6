"""What goes on beside requests, from the start of the gateway to its end."""

import asyncio

from gateway import __version__
from gateway.errors import GatewayError
from gateway.monitoring import metrics
from gateway.process.services import Services

_REPORT_S = 2.0


async def warm(services: Services) -> None:
    """Have ready what was asked for last before the process ended, with the networks that it brings along."""
    for roi in await services.banks.warm():
        await roi.loaded.detector.engine(services.engines)


async def report_state(services: Services) -> None:
    """Keep the gauges that no request changes."""
    told: tuple[str, ...] = ()
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
        if now != told:
            if told:
                metrics.BUILD.labels(*told).set(0)  # workers share values that nobody can remove
            metrics.BUILD.labels(*now).set(1)
            told = now
        await asyncio.sleep(_REPORT_S)
