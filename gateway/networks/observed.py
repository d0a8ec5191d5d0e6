"""An engine wrapper that updates the metrics."""

import numpy as np
from numpy.typing import NDArray

from gateway.errors import GatewayError
from gateway.monitoring import metrics
from gateway.networks.model_description import ModelDescription
from gateway.networks.protocol import Priority
from gateway.networks.wrapper import EngineWrapper


class ObservedEngine(EngineWrapper):
    """Counts the images of each call, and the failed calls."""

    async def tokens(
        self, images: NDArray[np.uint8], *, model: ModelDescription, priority: Priority = Priority.INSPECT
    ) -> NDArray[np.float32]:
        """See `TokenEngine.tokens`."""
        metrics.BATCH_SIZE.observe(len(images))
        try:
            return await super().tokens(images, model=model, priority=priority)
        except GatewayError as error:
            metrics.ENGINE_ERRORS.labels(error.code).inc()
            raise
