"""The scale of a recipe, in mm per pixel: the first fit or upload of the GUI that states it fixes it."""

import logging
import math
from pathlib import Path

from gateway.errors import GatewayError
from gateway.gui.errors import OtherScaleError
from gateway.settings import Settings
from gateway.store.artifact_store import ArtifactStore
from gateway.store.atomic import read_replaced, replace_file, storage_errors
from gateway.store.checksummed import DamagedError
from gateway.store.ids import folder_name
from gateway.store.lock import held
from gateway.store.sealed_model import SealedModel

log = logging.getLogger(__name__)

_FOLDER = ".gui"
"""Folder of the dialect in the models folder. No id starts with a dot, so no role can have it."""
_SAME = 1e-6
"""Relative difference up to which two scales are the same: a client may print fewer digits."""


class _Scale(SealedModel):
    mm_per_px: float


class RecipeScales:
    """The scales of all recipes, one small file each in the models folder. Every method blocks."""

    def __init__(self, store: ArtifactStore, settings: Settings) -> None:
        self._store = store
        self._lock_timeout_s = settings.fit_lock_timeout_s

    def of(self, recipe_id: str) -> float | None:
        """Return the scale of a recipe, or None if it is not fixed."""
        path = self._path(recipe_id)
        try:
            return _Scale.from_bytes(read_replaced(path), path.name).mm_per_px
        except FileNotFoundError:
            return None
        except DamagedError as error:
            log.warning("%s: %s: the next fit or upload fixes it again", path, error)
            return None

    def require(self, recipe_id: str, mm_per_px: float) -> None:
        """Refuse another scale than the one that the recipe has.

        Raises:
            OtherScaleError: the recipe has another one.
        """
        fixed = self.of(recipe_id)
        if fixed is not None and not _is_same(fixed, mm_per_px):
            raise _other(recipe_id, fixed, mm_per_px)

    def fix(self, recipe_id: str, *stated: float) -> None:
        """Fix the scale of a recipe that has none, or that is empty; refuse another one in any other recipe.

        It is fixed before anything is stored. A recipe is empty if it has neither a memory bank nor an image: a first
        upload that failed fixes nothing for good.

        Args:
            recipe_id: the recipe.
            stated: the scales that a request states, in mm per pixel.

        Raises:
            OtherScaleError: the recipe has another one, or the request states several.
            StorageFullError: it cannot be written.
        """
        if not stated:
            return
        mm_per_px = stated[0]
        if (other := next((each for each in stated if not _is_same(each, mm_per_px)), None)) is not None:
            raise OtherScaleError(
                f"mm_per_px: {mm_per_px:g} and {other:g} in one request, and recipe {recipe_id!r} can have one",
                "Send the images of one scale to one recipe.",
            )
        try:
            self.require(recipe_id, mm_per_px)
            if self.of(recipe_id) is not None:
                return
        except OtherScaleError:
            if not self._is_empty(recipe_id):
                raise
        path = self._path(recipe_id)
        with held(path.with_suffix(".lock"), f"recipe {recipe_id!r}", self._lock_timeout_s), storage_errors():
            fixed = self.of(recipe_id)
            if fixed is None or self._is_empty(recipe_id):
                replace_file(path, _Scale(mm_per_px=mm_per_px).to_bytes())
        self.require(recipe_id, mm_per_px)

    def _is_empty(self, recipe_id: str) -> bool:
        keys = [key for key in self._store.folders() if key.recipe_id == recipe_id]
        return not any(self._store.is_fitted(key) or self._store.images(key).count() for key in keys)

    def _path(self, recipe_id: str) -> Path:
        return self._store.root / _FOLDER / f"{folder_name(recipe_id)}.json"


def _is_same(one: float, other: float) -> bool:
    return math.isclose(one, other, rel_tol=_SAME)


def _other(recipe_id: str, fixed: float, mm_per_px: float) -> GatewayError:
    return OtherScaleError(
        f"mm_per_px: {mm_per_px:g} here, but recipe {recipe_id!r} is fixed at {fixed:g}",
        f"Send {fixed:g}, or use another recipe. To change it, delete all ROIs of the recipe first: DELETE /rois/….",
    )
