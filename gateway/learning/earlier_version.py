"""What a fit takes over from the version before it, and how the two differ."""

from collections.abc import Iterable, Mapping, Sequence

from gateway.detectors.spatial_weighting import SpatialWeighting, WeightsMode
from gateway.errors import InvalidRequestError
from gateway.images.tiling import Tiling
from gateway.learning.build import Recipe
from gateway.learning.intake import NewImage, identity_of
from gateway.learning.request import FitRequest, SuspectImage, TilesAsked
from gateway.learning.suspects import find_suspects
from gateway.networks.model_description import ModelDescription
from gateway.networks.model_tiling import chosen_tiling, tiling_of, whole_images
from gateway.settings import Settings
from gateway.store.manifest import ExcludedImage, Manifest, OkImage
from gateway.store.roi_key import RoiKey


def recipe_for(
    key: RoiKey,
    request: FitRequest | None,
    before: Manifest | None,
    settings: Settings,
    weighting: SpatialWeighting,
    tiling: Tiling,
) -> Recipe:
    """Return the parameters of a fit: those of the request, else those of the version before, else the settings.

    Args:
        key: the ROI.
        request: the request, or None where an image is removed.
        before: the version before, or None for a new ROI.
        settings: the defaults.
        weighting: the manual boxes; a box of the ROI decides about its spatial weights.
        tiling: from `tiling_for`.
    """
    rate = seed = depth = size = mode = None
    if request is not None:
        rate, seed, depth, mode = request.coreset_rate, request.seed, request.bit_depth, request.spatial_weights
        size = request.input_size
    if before is not None:
        rate = before.coreset_rate if rate is None else rate
        seed = before.seed if seed is None else seed
        depth = before.bit_depth if depth is None else depth
        size = before.input_size if size is None else size
        mode = _mode_of(before) if mode is None else mode
    return Recipe(
        coreset_rate=settings.coreset_rate if rate is None else rate,
        seed=settings.seed if seed is None else seed,
        k=settings.k,
        p_score=settings.p_score,
        spatial_weights=weighting.recipe(key, mode),
        bit_depth=depth,
        tiling=tiling,
        input_size=size,
    )


def tiling_for(
    asked: TilesAsked | None,
    before: Manifest | None,
    first_size: tuple[int, int] | None,
    model: ModelDescription,
    max_tiles: int,
) -> Tiling:
    """Return how a fit cuts images: as the request asks, else as the version before; a new ROI takes ``auto``.

    The size of the images is that of the first learned one. Another model cuts an ROI into at most as many tiles as the
    model before.

    Args:
        asked: by the request.
        before: the version before, or None for a new ROI.
        first_size: `(W, H)` of the first image that a new ROI learns; None where there is no image.
        model: the model that the engine serves.
        max_tiles: limit of the tiles of an image.

    Raises:
        InvalidRequestError: more tiles are asked for than the limit.
        ModelMismatchError: the grid of `before` is not one of its model.
    """
    if isinstance(asked, int) and asked > max_tiles:
        raise InvalidRequestError(
            f"tiles: {asked}; the limit is {max_tiles}", "Send fewer tiles, or raise GATEWAY_MAX_TILES."
        )
    most, is_asked = (asked, True) if isinstance(asked, int) else (max_tiles, False)
    if before is not None:
        first_size = before.images[0].width, before.images[0].height
        if asked is None and before.model_fingerprint == model.fingerprint:
            return tiling_of(before, model)
        if asked is None:
            most, is_asked = before.tiles[0] * before.tiles[1], True
    return whole_images(model) if first_size is None else chosen_tiling(first_size, model, most, asked=is_asked)


def _mode_of(before: Manifest) -> WeightsMode | None:
    """Return the mode of a version's spatial weights; None where a box decided, so that the setting decides."""
    kind = before.spatial_weights.kind
    return kind if kind in ("none", "variance") else None


def unidentified(before: Manifest | None, recipe: Recipe) -> list[OkImage]:
    """Return the images whose pixels are not identified, or only as another bit depth scales them.

    With another grid or input size these are all images, since they look otherwise at another resolution.
    """
    if before is None:
        return []
    rescaled = before.bit_depth != recipe.bit_depth
    resized = (before.token_hw, before.input_size) != (recipe.tiling.token_hw, recipe.input_size)
    return [
        image
        for image in (*before.images, *before.excluded)
        if resized or image.pixels_sha256 is None or image.bits is None or (rescaled and image.bits > 8)
    ]


def with_identities(before: Manifest, identified: Mapping[str, OkImage]) -> Manifest:
    """Return a version whose images have the identities and looks that were found.

    Args:
        before: the version.
        identified: images with their identity and looks, by their SHA-256.
    """

    def filled(image: OkImage) -> dict[str, str | int | float | None]:
        found = identified.get(image.sha256, image)
        return {name: getattr(found, name) for name in ("pixels_sha256", "bits", "brightness", "sharpness")}

    images = tuple(image.model_copy(update=filled(image)) for image in before.images)
    excluded = tuple(image.model_copy(update=filled(image)) for image in before.excluded)
    return before.model_copy(update={"images": images, "excluded": excluded})


class KnownImages:
    """The images that a version has learned or excluded."""

    def __init__(self, before: Manifest | None) -> None:
        images: Iterable[OkImage] = () if before is None else (*before.images, *before.excluded)
        self._by_file = {image.sha256: image for image in images}
        self._by_identity = {identity_of(image): image for image in self._by_file.values()}

    def __contains__(self, sha256: str) -> bool:
        return sha256 in self._by_file

    def by_file(self, sha256: str) -> OkImage:
        """Return a known image by the SHA-256 of its file."""
        return self._by_file[sha256]

    def find(self, image: OkImage) -> OkImage | None:
        """Return the known image that shows the same picture as a new one, in the same file or in another."""
        return self._by_identity.get(identity_of(image)) or self._by_file.get(image.sha256)


def suspects_in(before: Manifest) -> list[SuspectImage]:
    """Return the learned images of a version that are probably defective, worst first."""
    return [SuspectImage(before.images[s.index], s.score, s.robust_z) for s in find_suspects(before.ok_scores)]


def has_same_recipe(before: Manifest, model: ModelDescription, recipe: Recipe, mm_per_px: float) -> bool:
    """Return whether a version was made with the same model, parameters and scale."""
    used = Recipe(
        coreset_rate=before.coreset_rate,
        seed=before.seed,
        k=before.k,
        p_score=before.p_score,
        spatial_weights=before.spatial_weights,
        bit_depth=before.bit_depth,
        tiling=recipe.tiling,
        input_size=before.input_size,
    )
    has_same_grid = (before.tiles, before.token_hw) == (recipe.tiling.tiles, recipe.tiling.token_hw)
    is_same_model = before.model_fingerprint == model.fingerprint
    return is_same_model and has_same_grid and used == recipe and before.mm_per_px == mm_per_px


def change_warnings(request: FitRequest, recipe: Recipe, before: Manifest) -> list[str]:
    """Warn of parameters that differ from those of the version before and change what scores or areas mean."""
    found = []
    if abs(request.mm_per_px / before.mm_per_px - 1) > 0.01:
        found.append(f"mm_per_px: {request.mm_per_px:g} here, {before.mm_per_px:g} at the fit before")
    if recipe.coreset_rate != before.coreset_rate:
        found.append(f"coreset_rate: {recipe.coreset_rate:g} here, {before.coreset_rate:g} at the fit before")
    if recipe.seed != before.seed:
        found.append(f"seed: {recipe.seed} here, {before.seed} at the fit before")
    if recipe.bit_depth != before.bit_depth:
        had = "none" if before.bit_depth is None else before.bit_depth
        found.append(f"bit_depth: {recipe.bit_depth} here, {had} at the fit before; all images were read again")
    if recipe.input_size != before.input_size:
        had = "the configured model" if before.input_size is None else before.input_size
        found.append(f"input_size: {recipe.input_size} here, {had} at the fit before; all images were read again")
    if recipe.tiling.tiles != before.tiles:
        grids = "{} × {} here, {} × {} at the fit before".format(*recipe.tiling.tiles, *before.tiles)
        found.append(f"tiles: {grids}; all images were read again")
    now, then = recipe.spatial_weights.kind, before.spatial_weights.kind
    if now != then:
        found.append(f"spatial_weights: {now} here, {then} at the fit before")
    return found


def tiles_warnings(request: FitRequest, recipe: Recipe, first: OkImage) -> list[str]:
    """Warn of tiles that nobody asked for, since each of them costs as much as a whole image.

    Args:
        request: the first fit of an ROI.
        recipe: its parameters.
        first: the image whose size decided.
    """
    tiling = recipe.tiling
    if request.tiles is not None or tiling.n_tiles == 1:
        return []
    rows, columns = tiling.tiles
    share = min(1.0, *(to / size for to, size in zip(tiling.size_wh, (first.width, first.height), strict=True)))
    return [
        f"tiles: images of {first.width} × {first.height} pixels are cut into {rows} × {columns} tiles, which keep "
        f"{share:.0%} of their resolution; an inspection takes at least {tiling.n_tiles} times as long as without. To "
        "learn the whole image at once, send tiles=1"
    ]


def excluded_warnings(again: Sequence[tuple[OkImage, NewImage]], before: Manifest) -> list[str]:
    """Warn of images that were not learned since an earlier fit excluded them.

    Args:
        again: known images that were sent again.
        before: the version before.
    """
    return [
        f"{n.image.file_name}: not learned, an earlier fit excluded this image as a suspect; to learn it, "
        f"DELETE {before.key.url(f'/ok/{known.sha256}')} and send it again"
        for known, n in again
        if isinstance(known, ExcludedImage)
    ]
