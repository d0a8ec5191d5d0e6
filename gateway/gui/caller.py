"""The ROI that a request of the GUI is about, and the recipe that answers it."""

from collections.abc import Callable
from typing import Annotated

from anyio import to_thread
from fastapi import Depends, Request

from gateway.api.deps import CallerDep
from gateway.api.recipe import RoiCaller
from gateway.gui.errors import ReservedRecipeError
from gateway.gui.scale import RecipeScales
from gateway.process.services import Services
from gateway.store.roi_key import DEFAULT_RECIPE, RoiKey

RESERVED = "last"


class GuiCaller:
    """The sender of a request. `own` is the only way from the ids of a request to an `RoiKey`."""

    def __init__(self, request: Request, caller: RoiCaller) -> None:
        services: Services = request.app.state.services
        self._state = request.state
        self._store = services.store
        self._caller = caller
        self.scales = RecipeScales(services.store, services.settings)
        """The scales of recipes."""

    def recipe(self) -> str:
        """Return the recipe that the query or the header names, of a request about no ROI.

        Raises:
            ReservedRecipeError: the recipe has a reserved name.
            InvalidRequestError: it is not a valid id.
        """
        _require_free(self._caller.named(None))
        return self._caller.only() or DEFAULT_RECIPE

    def own(self, role_id: str, roi_id: str, recipe_id: str | None = None) -> RoiKey:
        """Return the ROI in the recipe that the request names. What is written is written there.

        Args:
            role_id: as sent.
            roi_id: as sent.
            recipe_id: the field of a form or of JSON; it wins over the header.

        Raises:
            ReservedRecipeError: the recipe has a reserved name.
            InvalidRequestError: an id is invalid.
            ForbiddenError: the caller may not use the ROI.
        """
        _require_free(self._caller.named(recipe_id))
        key = self._caller.roi(role_id, roi_id, recipe_id)
        self._state.recipe_id = key.recipe_id
        return key

    async def fitted(self, key: RoiKey) -> RoiKey:
        """Return the ROI whose memory bank answers: that of the recipe or, if it has none, of the default recipe."""
        return await self._first(key, self._store.is_fitted)

    async def with_images(self, key: RoiKey) -> RoiKey:
        """Return the ROI whose data set answers: that of the recipe or, if it is empty, of the default recipe."""
        return await self._first(key, lambda each: self._store.images(each).count() > 0)

    async def _first(self, key: RoiKey, has_it: Callable[[RoiKey], bool]) -> RoiKey:
        default = RoiKey(key.role_id, key.roi_id)
        if key == default or not self._caller.sees(default):
            return key
        found = await to_thread.run_sync(lambda: not has_it(key) and has_it(default))
        answers = default if found else key
        self._state.recipe_id = answers.recipe_id
        return answers


def _require_free(recipe_id: str | None) -> None:
    if recipe_id is not None and recipe_id.strip().casefold() == RESERVED:
        raise ReservedRecipeError(f"recipe_id: {recipe_id!r} is reserved")


def _gui_caller(request: Request, caller: CallerDep) -> GuiCaller:
    return GuiCaller(request, caller)


GuiCallerDep = Annotated[GuiCaller, Depends(_gui_caller)]
"""The caller of the dialect."""
