"""What a fit takes over from the version before it, and how the two differ."""

from collections.abc import Iterable, Mapping, Sequence

from gateway.detectors.spatial_weighting import SpatialWeighting, WeightsMode
from gateway.learning.build import Recipe
from gateway.learning.intake import NewImage, identity_of
from gateway.learning.request import FitRequest, SuspectImage
from gateway.learning.suspects import find_suspects
from gateway.networks.model_description import ModelDescription
from gateway.settings import Settings
from gateway.store.manifest import ExcludedImage, Manifest, OkImage
from gateway.store.roi_key import RoiKey


def recipe_for(
    key: RoiKey, request: FitRequest | None, before: Manifest | None, settings: Settings, weighting: SpatialWeighting
) -> Recipe:
    """Return the parameters of a fit: those of the request, else those of the version before, else the settings.

    Args:
        key: the ROI.
        request: the request, or None where an image is removed.
        before: the version before, or None for a new ROI.
        settings: the defaults.
        weighting: the manual boxes; a box of the ROI decides about its spatial weights.
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
        input_size=size,
    )


def _mode_of(before: Manifest) -> WeightsMode | None:
    """Return the mode of a version's spatial weights; None where a box decided, so that the setting decides."""
    kind = before.spatial_weights.kind
    return kind if kind in ("none", "variance") else None


def unidentified(before: Manifest | None, recipe: Recipe) -> list[OkImage]:
    """Return the images whose pixels are not identified, or only as another bit depth scales them.

    With another input size these are all images, since the network's input looks otherwise.
    """
    if before is None:
        return []
    rescaled, resized = before.bit_depth != recipe.bit_depth, before.input_size != recipe.input_size
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
        input_size=before.input_size,
    )
    return before.model_fingerprint == model.fingerprint and used == recipe and before.mm_per_px == mm_per_px


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
    now, then = recipe.spatial_weights.kind, before.spatial_weights.kind
    if now != then:
        found.append(f"spatial_weights: {now} here, {then} at the fit before")
    return found


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
