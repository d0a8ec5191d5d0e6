"""What a fit will work with: its token model, how it cuts images, and the memory that it takes."""

from collections.abc import Sequence

from gateway.errors import InvalidRequestError, ModelMismatchError
from gateway.images.tiling import Tiling
from gateway.learning.earlier_version import tiling_for
from gateway.learning.intake import Intake
from gateway.learning.memory_need import memory_of_fit, require_affordable
from gateway.learning.request import ImageFile, TilesAsked
from gateway.learning.taken_over import n_of_stored_fit, stored_files
from gateway.networks.model_description import ModelDescription
from gateway.networks.registry import EngineRegistry
from gateway.settings import Settings
from gateway.store.artifact_store import ArtifactStore
from gateway.store.manifest import Manifest
from gateway.store.roi_key import RoiKey


class FitPlanner:
    """Joins what a request asks for with what the version before has. Each ``before`` is that version, or None."""

    def __init__(self, engines: EngineRegistry, store: ArtifactStore, intake: Intake, settings: Settings) -> None:
        self._engines = engines
        self._store = store
        self._intake = intake
        self._settings = settings

    async def model(self, asked: int | None, before: Manifest | None) -> ModelDescription:
        """Return the token model of the input size that the request asks for, else of that of the version before.

        Raises:
            InvalidRequestError: no model has the input size that is asked for.
            GatewayError: see `EngineRegistry.token_engine_of`.
        """
        size = before.input_size if asked is None and before is not None else asked
        try:
            return (await self._engines.token_engine_of(size)).model
        except ModelMismatchError as error:
            if asked is None:
                raise
            raise InvalidRequestError(f"input_size: {error.message}", error.hint) from error

    def tiling(
        self, asked: TilesAsked | None, before: Manifest | None, files: Sequence[ImageFile], model: ModelDescription
    ) -> Tiling:
        """Return how the fit cuts images. Without a version before, the first of `files` decides. Blocks.

        Raises:
            InvalidRequestError: too many tiles are asked for.
            GatewayError: the first image of a new ROI cannot be read.
        """
        first_size = self._intake.first_size(files) if before is None else None
        return tiling_for(asked, before, first_size, model, self._settings.max_tiles)

    def memory_needed(
        self,
        key: RoiKey,
        new: Sequence[ImageFile] | None,
        coreset_rate: float | None,
        tiles: TilesAsked | None,
        before: Manifest | None,
        model: ModelDescription,
    ) -> int:
        """Return the memory that the fit takes, in bytes: see `FitService.memory_needed`. Blocks."""
        if new is None:
            n_images = n_of_stored_fit(self._store, key, before)
        else:
            n_images = len(new) + (0 if before is None else len(before.images))
        files = stored_files(self._store, key) if new is None else new
        tiling = self.tiling(tiles, before, files, model)
        rate = coreset_rate or (self._settings.coreset_rate if before is None else before.coreset_rate)
        memory = memory_of_fit(n_images, rate, tiling.n_tokens, model.dim)
        require_affordable(key, memory, self._settings.max_fit_memory_bytes, n_images, rate, tiling)
        return memory
