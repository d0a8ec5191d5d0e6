"""The protocol of token engines. The rest of the gateway uses it and does not depend on an implementation."""

from dataclasses import dataclass
from enum import IntEnum
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from gateway.networks.model_description import ModelDescription


class Priority(IntEnum):
    """Triton's priority levels. Level 1 is served first."""

    INSPECT = 1
    FIT = 2


@dataclass(frozen=True, slots=True)
class EngineStatus:
    """Whether an engine can compute tokens now, with what, and if not, why."""

    ready: bool
    device: str
    """``cuda`` or ``cpu``."""
    runtime: str
    """Runtime and precision, such as ``openvino-bf16``."""
    reason: str | None = None
    runtime_reason: str | None = None
    """Why it is this precision; None where nothing was chosen."""


class TokenEngine(Protocol):
    """A frozen network that turns images into L2-normalised tokens."""

    @property
    def model(self) -> ModelDescription:
        """The model served.

        Raises:
            EngineUnavailableError: unknown so far, since nothing is loaded or no server has answered.
        """

    @property
    def device(self) -> str:
        """``cuda`` or ``cpu``, as far as it is known. Asks no server."""

    async def start(self) -> None:
        """Load or connect. Does not raise when the engine is unavailable: `ready` says so."""

    @property
    def status(self) -> EngineStatus:
        """The last result of `ready`. Asks no server."""

    async def tokens(
        self, images: NDArray[np.uint8], *, model: ModelDescription, priority: Priority = Priority.INSPECT
    ) -> NDArray[np.float32]:
        """Compute tokens.

        Args:
            images: uint8 [B, S, S, 3], RGB.
            model: the value of `model` when the caller began. Tokens of another model are never returned.
            priority: inspections go before fits.

        Returns:
            float32 [B, N, D], each token of L2 norm 1.

        Raises:
            EngineUnavailableError: the engine cannot answer now.
            EngineTimeoutError: the engine did not answer in time.
            OverloadedError: the server's queue is full.
            ModelMismatchError: the engine now serves another model than `model`.
        """

    async def ready(self) -> EngineStatus:
        """Check whether `tokens` works now. May ask the server."""

    async def close(self) -> None:
        """Release threads, connections and memory."""
