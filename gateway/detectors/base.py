"""The protocol of a detector: the rest of the gateway inspects without knowing what a version holds."""

from dataclasses import dataclass
from typing import ClassVar, Protocol

import numpy as np
from numpy.typing import NDArray

from gateway.networks import TokenEngine
from gateway.networks.registry import EngineRegistry
from gateway.store.manifest import FileName


@dataclass(frozen=True, slots=True)
class OkPatch:
    """The patch of an OK image that a token of the memory bank was made from."""

    image: int
    """Place of the image among the manifest's `images`."""
    token: int
    """Place in the token grid of that image, counted along rows."""
    distance: float
    """From the token that was asked about, 0–2, before the spatial weights."""


class Detector(Protocol):
    """The detector of one version of an ROI: it measures how far each place of an image is from OK images."""

    mismatch_hint: ClassVar[str | None]
    """The hint for a version that was made with another model than the one served; None takes the error's default."""

    @property
    def n_bytes(self) -> int:
        """Memory that the detector holds, in bytes."""

    def files(self) -> dict[FileName, bytes]:
        """Return the files that the version's folder keeps."""

    def check(self) -> None:
        """Compare the whole detector with its manifest. An import does this for files from another gateway.

        Raises:
            ValueError: the detector differs from its manifest.
        """

    async def engine(self, engines: EngineRegistry) -> TokenEngine:
        """Return the engine of the network that images go through first.

        Raises:
            GatewayError: see `EngineRegistry.token_engine_of`.
        """

    def neighbours(self, asked: int | None) -> tuple[int, list[str]]:
        """Return how many neighbours are averaged, and the warnings.

        Args:
            asked: the `k` of the request; None takes the fit's.
        """

    def distances(self, tokens: NDArray[np.float32], k: int) -> NDArray[np.float32]:
        """Return the distance of each place to OK images, before the spatial weights.

        Args:
            tokens: float32 [N, D], the engine's output for one image.
            k: number of neighbours, from `neighbours`.

        Returns:
            float32 [h · w], row by row of the manifest's `token_hw`.
        """

    def nearest_ok_patch(self, token: NDArray[np.float32]) -> OkPatch | None:
        """Return the OK patch that is nearest to a token, float32 [D]; None where the detector keeps no OK patches."""

    def has_learned(self, sha256: str) -> bool:
        """Return whether the detector has learned an image, by the SHA-256 of its file or of its pixels."""
