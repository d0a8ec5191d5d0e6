"""What a fit takes over from the version before it, and how the two differ."""

from collections.abc import Sequence

from gateway.learning.build import Recipe
from gateway.learning.intake import NewImage
from gateway.learning.request import FitRequest, SuspectImage
from gateway.learning.suspects import find_suspects
from gateway.networks.model_description import ModelDescription
from gateway.store.manifest import Manifest, OkImage


def known_images(before: Manifest | None) -> set[str]:
    """Return the SHA-256 of the images that a version has learned or excluded; none without a version."""
    return set() if before is None else {image.sha256 for image in (*before.images, *before.excluded)}


def suspects_in(before: Manifest) -> list[SuspectImage]:
    """Return the learned images of a version that are probably defective, worst first."""
    return [SuspectImage(before.images[s.index], s.score, s.robust_z) for s in find_suspects(before.ok_scores)]


def with_new_shape(before: Manifest | None, new: Sequence[NewImage], shape_json: str | None) -> list[OkImage]:
    """Return the images that a version has learned; those that were sent again with a shape have the new shape."""
    if before is None or shape_json is None:
        return list(before.images) if before else []
    again = {n.image.sha256 for n in new}
    return [
        image.model_copy(update={"shape": shape_json}) if image.sha256 in again else image for image in before.images
    ]


def has_same_recipe(before: Manifest, model: ModelDescription, recipe: Recipe, mm_per_px: float) -> bool:
    """Return whether a version was made with the same model, parameters and scale."""
    used = Recipe(
        coreset_rate=before.coreset_rate,
        seed=before.seed,
        k=before.k,
        p_score=before.p_score,
        spatial_weights=before.spatial_weights,
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
    now, then = recipe.spatial_weights.kind, before.spatial_weights.kind
    if now != then:
        found.append(f"spatial_weights: {now} here, {then} at the fit before")
    return found


def excluded_warnings(new: Sequence[NewImage], before: Manifest) -> list[str]:
    """Warn of images that were not learned since an earlier fit excluded them."""
    excluded = {image.sha256: image for image in before.excluded}
    return [
        f"{n.image.file_name}: not learned, an earlier fit excluded this image as a suspect; to learn it, "
        f"DELETE /rois/{before.role_id}/{before.roi_id}/ok/{n.image.sha256} and send it again"
        for n in new
        if n.image.sha256 in excluded
    ]
