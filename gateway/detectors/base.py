"""The protocol by which the rest of the gateway inspects, so that it does not know what a version holds."""

from typing import ClassVar, Protocol

import numpy as np
from numpy.typing import NDArray

from gateway.networks import TokenEngine
from gateway.networks.registry import EngineRegistry
from gateway.store.manifest import FileName


class Detector(Protocol):
    """One version of an ROI, ready to tell of each place of an image how far it is from what is OK."""

    mismatch_hint: ClassVar[str | None]
    """What to do where the engine serves another model than this version was made with; None for the usual."""

    @property
    def n_bytes(self) -> int:
        """Memory held."""

    def files(self) -> dict[FileName, bytes]:
        """What a version's folder keeps of it."""

    def check(self) -> None:
        """Hold all of it to what its manifest says: for what comes from elsewhere.

        Raises:
            ValueError: says what is not as it should be.
        """

    async def engine(self, engines: EngineRegistry) -> TokenEngine:
        """The engine whose model images go through first."""

    def neighbours(self, asked: int | None) -> tuple[int, list[str]]:
        """How many neighbours are averaged where a client asked for so many, and what to warn of."""

    def distances(self, tokens: NDArray[np.float32], k: int) -> NDArray[np.float32]:
        """How far each place is from what is OK, before the spatial weights.

        Args:
            tokens: float32 [N, D], of the engine, of one image.
            k: as `neighbours` says.

        Returns:
            float32 [h · w], row by row, of the grid that the manifest calls `token_hw`.
        """

    def has_learned(self, sha256: str) -> bool:
        """Whether it knows this very image, by the SHA-256 of its bytes."""
