"""Any engine, with what it does counted."""

import numpy as np
from numpy.typing import NDArray

from gateway import metrics
from gateway.engines.base import EngineStatus, Priority, TokenEngine
from gateway.errors import GatewayError
from gateway.model_description import ModelDescription


class ObservedEngine:
    """Passes everything on to the engine inside."""

    def __init__(self, engine: TokenEngine) -> None:
        self._engine = engine

    @property
    def model(self) -> ModelDescription:
        """See `TokenEngine.model`."""
        return self._engine.model

    @property
    def device(self) -> str:
        """See `TokenEngine.device`."""
        return self._engine.device

    async def start(self) -> None:
        """See `TokenEngine.start`."""
        await self._engine.start()

    @property
    def status(self) -> EngineStatus:
        """See `TokenEngine.status`."""
        return self._engine.status

    async def tokens(
        self, images: NDArray[np.uint8], *, model: ModelDescription, priority: Priority = Priority.INSPECT
    ) -> NDArray[np.float32]:
        """See `TokenEngine.tokens`."""
        metrics.BATCH_SIZE.observe(len(images))
        try:
            return await self._engine.tokens(images, model=model, priority=priority)
        except GatewayError as error:
            metrics.ENGINE_ERRORS.labels(error.code).inc()
            raise

    async def ready(self) -> EngineStatus:
        """See `TokenEngine.ready`."""
        return await self._engine.ready()

    async def close(self) -> None:
        """See `TokenEngine.close`."""
        await self._engine.close()
