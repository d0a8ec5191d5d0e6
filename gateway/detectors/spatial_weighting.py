"""Spatial weights of an ROI: from a box in the ROI file, from the spread of its OK maps, or none."""

import json
import logging
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from gateway.errors import InvalidRequestError
from gateway.settings import Settings
from gateway.store.manifest import WeightsRecipe
from gateway.store.roi_key import RoiKey
from postprocess.spatial_weights import Box, EmptyBoxError, box_weights, clamp_box, variance_weights

log = logging.getLogger(__name__)

WeightsMode = Literal["none", "variance"]
"""Spatial weights that a client may request for a fit."""


class RoiConfigError(ValueError):
    """Raised for an invalid ROI file. The message names the file and the entry."""


class SpatialWeighting:
    """The ROI file and the settings for spatial weights, read once at the start."""

    def __init__(self, settings: Settings, boxes: Mapping[str, Box]) -> None:
        self._boxes = boxes
        self._space = settings.roi_config_size
        self._low, self._high = settings.mask_min_weight, settings.mask_max_weight
        self._default: WeightsMode = settings.spatial_weights

    @classmethod
    def from_settings(cls, settings: Settings) -> "SpatialWeighting":
        """Read the ROI file that the settings name, if it exists.

        Raises:
            RoiConfigError: the file is invalid.
        """
        path = settings.roi_config
        if not path.is_file():
            if "roi_config" in settings.model_fields_set:
                log.warning("GATEWAY_ROI_CONFIG: the file %s does not exist; no ROI has a manual box", path)
            return cls(settings, {})
        boxes = read_roi_config(path, settings.roi_config_size)
        log.info("%s: manual boxes for %s", path, ", ".join(boxes) or "no ROI")
        return cls(settings, boxes)

    def recipe(self, key: RoiKey, mode: WeightsMode | None = None) -> WeightsRecipe:
        """Return the recipe for a fit of an ROI: its box, else the requested mode, else the setting.

        An entry `role_id/roi_id` of the ROI file, or `recipe_id/role_id/roi_id` for another recipe than the default,
        takes precedence over `roi_id`, which counts for every role and recipe.
        """
        box = self._boxes.get(str(key), self._boxes.get(key.roi_id))
        if box is not None:
            return WeightsRecipe(
                kind="manual", box=box, box_space=self._space, min_weight=self._low, max_weight=self._high
            )
        if (mode or self._default) == "variance":
            return WeightsRecipe(kind="variance", min_weight=self._low, max_weight=self._high)
        return WeightsRecipe()

    def is_stale(self, key: RoiKey, used: WeightsRecipe) -> bool:
        """Return whether a version was fitted with other weights than the ROI file and the settings give now."""
        if used.kind == "file":
            return self.recipe(key).kind == "manual"
        return self.recipe(key, "variance" if used.kind == "variance" else "none") != used


def weights_of(
    recipe: WeightsRecipe, token_hw: tuple[int, int], spread: NDArray[np.float32] | None
) -> NDArray[np.float32] | None:
    """Compute the spatial weights of an ROI.

    Args:
        recipe: source of the weights and their range.
        token_hw: `(h, w)` of the token grid.
        spread: float32 [h, w], the spread of the OK maps, or None for an ROI of one image.

    Returns:
        float32 [h, w], or None for no weights: kind none, or variance without a spread.
    """
    low, high = recipe.min_weight, recipe.max_weight
    if low is None or high is None:
        return None
    automatic = None if spread is None else variance_weights(spread, low, high)
    if recipe.kind == "variance":
        if automatic is not None:
            log.info("spatial weights from the spread of the OK maps: %s", _range(automatic))
        return automatic
    if recipe.box is None or recipe.box_space is None:
        return None
    manual = box_weights(recipe.box, recipe.box_space, token_hw, outside=low, inside=high)
    log.info("spatial weights before the override, from the spread of the OK maps: %s", _range(automatic))
    log.info("spatial weights overridden by the manual box %s: %s", list(recipe.box), _range(manual))
    return manual


def read_roi_config(path: Path, size: int) -> dict[str, Box]:
    """Read a file of manual boxes, ``{"conn1": [y1, y2, x1, x2], …}``.

    Args:
        path: the file; its keys are `roi_id`, `role_id/roi_id` or `recipe_id/role_id/roi_id`.
        size: side of the square image space of the boxes, in pixels. Coordinates outside are clamped on use.

    Returns:
        The boxes by key.

    Raises:
        RoiConfigError: the file is unreadable, not JSON or not such an object, or a box covers nothing.
    """

    def unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        names = [name for name, _ in pairs]
        for name in names:
            if names.count(name) > 1:
                raise RoiConfigError(f"{path}: the entry {name!r} occurs twice")
        return dict(pairs)

    try:
        given = json.loads(path.read_text(encoding="utf-8-sig"), parse_int=float, object_pairs_hook=unique)
    except OSError as error:
        raise RoiConfigError(f"{path}: {error.strerror}") from error
    except RoiConfigError:
        raise
    except (ValueError, RecursionError) as error:
        raise RoiConfigError(f"{path}: not JSON: {error}") from error
    if not isinstance(given, dict):
        raise RoiConfigError(f'{path}: expected an object such as {{"conn1": [y1, y2, x1, x2]}}')
    return unique([(_roi_name(path, name), _box(path, name, value, size)) for name, value in given.items()])


def _roi_name(path: Path, name: str) -> str:
    """Return the name of an entry with its ids in normalisation form C, as those of requests are."""
    try:
        return str(RoiKey.parse(name)) if "/" in name else RoiKey(name, name).roi_id
    except InvalidRequestError:
        expected = "expected a roi_id, role_id/roi_id or recipe_id/role_id/roi_id"
        raise RoiConfigError(f"{path}: {name!r}: {expected}") from None


def _box(path: Path, name: str, value: Any, size: int) -> Box:
    numbers = isinstance(value, list) and all(isinstance(edge, float) and math.isfinite(edge) for edge in value)
    if not numbers or len(value) != 4:
        raise RoiConfigError(f"{path}: {name!r}: {json.dumps(value)[:60]}; expected four numbers [y1, y2, x1, x2]")
    y1, y2, x1, x2 = value
    box = y1, y2, x1, x2
    try:
        clamp_box(box, size)
    except EmptyBoxError as error:
        raise RoiConfigError(f"{path}: {name!r}: {error}") from error
    return box


def _range(weights: NDArray[np.float32] | None) -> str:
    return "none" if weights is None else f"{float(weights.min()):g} to {float(weights.max()):g}"
