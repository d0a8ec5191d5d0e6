"""The tiles that a network's input makes of images."""

from gateway.errors import ModelMismatchError
from gateway.images.tiling import Tiling, tiling_of_size
from gateway.networks.model_description import ModelDescription
from gateway.store.manifest import Manifest


def whole_images(model: ModelDescription) -> Tiling:
    """Return the tiling of images that are not cut."""
    return Tiling.whole(model.token_hw, model.input_size)


def chosen_tiling(size_wh: tuple[int, int], model: ModelDescription, most: int, *, asked: bool) -> Tiling:
    """Choose the tiling of images of one size, as `tiling_of_size` does."""
    return tiling_of_size(size_wh, model.token_hw, model.input_size, most, asked=asked)


def tiling_of(manifest: Manifest, model: ModelDescription) -> Tiling:
    """Return the tiling of a version.

    Args:
        manifest: of the version.
        model: the model that it was made with.

    Raises:
        ModelMismatchError: its grid is not one of this model's tiles.
    """
    if manifest.tiles == (1, 1):
        return whole_images(model)
    try:
        return Tiling(manifest.tiles, manifest.token_hw, model.token_hw, model.input_size)
    except ValueError as error:
        raise ModelMismatchError(f"{manifest.key}: {error}, as the model has them") from error
