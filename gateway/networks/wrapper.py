"""A base class for engines that wrap another engine and change one of its methods."""

import numpy as np
from numpy.typing import NDArray

from gateway.networks.model_description import ModelDescription
from gateway.networks.protocol import EngineStatus, Priority, TokenEngine


class EngineWrapper:
    """Passes every call on to the wrapped engine."""

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

    @property
    def status(self) -> EngineStatus:
        """See `TokenEngine.status`."""
        return self._engine.status

    async def start(self) -> None:
        """See `TokenEngine.start`."""
        await self._engine.start()

    async def tokens(
        self, images: NDArray[np.uint8], *, model: ModelDescription, priority: Priority = Priority.INSPECT
    ) -> NDArray[np.float32]:
        """See `TokenEngine.tokens`."""
        return await self._engine.tokens(images, model=model, priority=priority)

    async def ready(self) -> EngineStatus:
        """See `TokenEngine.ready`."""
        return await self._engine.ready()

    async def close(self) -> None:
        """See `TokenEngine.close`."""
        await self._engine.close()
