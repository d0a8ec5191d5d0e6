"""The warnings for the picture itself: what it shows, the range that it uses, its bits a sample."""

from gateway.images.content import exceeded_depth, narrow_range
from gateway.images.picture import Picture
from gateway.store.manifest import Manifest


def picture_warnings(picture: Picture, nothing_shown: str | None, manifest: Manifest) -> tuple[str, ...]:
    """Return the warnings for a picture.

    Args:
        picture: the decoded image, scaled by the bit depth in use.
        nothing_shown: from `why_nothing_shows`.
        manifest: of the version that answers.
    """
    if nothing_shown is not None:
        return (f"no picture: {nothing_shown}. Check the camera, the lighting and the cable",)
    found = [
        f"{field}: {what}"
        for field, what in (("bit_depth", exceeded_depth(picture)), ("range", narrow_range(picture)))
        if what is not None
    ]
    if picture.bit_depth != manifest.bit_depth:
        then = "none" if manifest.bit_depth is None else manifest.bit_depth
        found.append(f"bit_depth: {picture.bit_depth} here, {then} at the fit")
    learned = {image.bits for image in manifest.images if image.bits is not None}
    if learned and picture.samples.bits not in learned:
        shown = " and ".join(map(str, sorted(learned)))
        found.append(f"the image has {picture.samples.bits} bits a sample, the OK images have {shown}")
    return tuple(found)
