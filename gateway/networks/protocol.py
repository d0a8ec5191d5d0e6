"""The protocol by which the rest of the gateway gets tokens, so that it does not know where they come from."""

from dataclasses import dataclass
from enum import IntEnum
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from gateway.networks.model_description import ModelDescription


class Priority(IntEnum):
    """Triton's priority levels: 1 is served first."""

    INSPECT = 1
    FIT = 2


@dataclass(frozen=True, slots=True)
class EngineStatus:
    """Whether tokens can be had now, from what, and if not, why."""

    ready: bool
    device: str
    """``cuda`` or ``cpu``."""
    runtime: str
    """What computes, such as ``openvino-bf16``."""
    reason: str | None = None


class TokenEngine(Protocol):
    """Frozen network: images in, L2-normalised tokens out."""

    @property
    def model(self) -> ModelDescription:
        """The model served.

        Raises:
            EngineUnavailableError: not known yet, since nothing is loaded or reached.
        """

    @property
    def device(self) -> str:
        """``cuda`` or ``cpu``, known without asking anybody."""

    async def start(self) -> None:
        """Load or connect. Never raises for an engine that is merely not there yet: `ready` tells."""

    @property
    def status(self) -> EngineStatus:
        """What `ready` found last, without asking anybody."""

    async def tokens(
        self, images: NDArray[np.uint8], *, model: ModelDescription, priority: Priority = Priority.INSPECT
    ) -> NDArray[np.float32]:
        """Compute tokens.

        Args:
            images: uint8 [B, S, S, 3], RGB.
            model: what `model` was when the caller began; tokens of another are never returned.
            priority: inspection goes before fitting where both wait.

        Returns:
            float32 [B, N, D], each token of L2 norm 1.

        Raises:
            EngineUnavailableError: no answer can be had now.
            EngineTimeoutError: none came in time.
            OverloadedError: the server's queue is full.
            ModelMismatchError: another model than `model` is served by now.
        """

    async def ready(self) -> EngineStatus:
        """Ask whether `tokens` would work now."""

    async def close(self) -> None:
        """Release threads, connections and memory."""
