"""Which pictures a fit refuses, and which it warns of."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from gateway.errors import InvalidRequestError
from gateway.images.content import exceeded_depth, narrow_range, why_nothing_shows
from gateway.images.picture import Picture
from gateway.store.manifest import OkImage


def require_content(
    name: str,
    picture: Picture,
    network_input: NDArray[np.uint8] | None,
    *,
    done: Literal["learned", "stored"] = "learned",
) -> None:
    """Refuse a picture that shows nothing, and one whose values exceed the stated bit depth.

    Args:
        name: name of the file, for the message.
        picture: the decoded image.
        network_input: uint8 [S, S, 3] RGB; None where the network is unknown.
        done: what is not done with the images of the request, for the message.

    Raises:
        InvalidRequestError: names the file.
    """
    exceeded = exceeded_depth(picture)
    if exceeded is not None and picture.samples.bits > 8:
        raise InvalidRequestError(
            f"images: {name}: {exceeded}; no image of this request was {done}",
            "Send the bit depth of the camera as bit_depth. It is kept with the ROI.",
        )
    why = why_nothing_shows(picture, network_input)
    if why is not None:
        raise InvalidRequestError(
            f"images: {name} shows nothing: {why}; no image of this request was {done}",
            "Check the lamp, the exposure and the camera. Send the other images without this image.",
        )


@dataclass(slots=True)
class Findings:
    """What a fit has seen of the images of its request so far."""

    files: set[str] = field(default_factory=set)
    """SHA-256 of the files."""
    pictures: set[str] = field(default_factory=set)
    """Identities of the pictures."""
    narrow: list[str] = field(default_factory=list)
    """Warnings of images that use a sliver of their range."""
    eight_bits: list[str] = field(default_factory=list)
    """Images of 8 bits a sample where the ROI has a bit depth of more."""
    depths: dict[int, str] = field(default_factory=dict)
    """Bits a sample, with the first image that has them."""

    def is_new(self, identity: str) -> bool:
        """Remember a picture and return whether it is the first one with its identity."""
        if identity in self.pictures:
            return False
        self.pictures.add(identity)
        return True

    def note(self, name: str, picture: Picture) -> None:
        """Remember what the samples of a file say about the camera."""
        narrow = narrow_range(picture)
        if narrow is not None:
            self.narrow.append(f"{name}: {narrow}")
        if picture.bit_depth is not None and picture.bit_depth > 8 and picture.samples.bits <= 8:
            self.eight_bits.append(name)
        self.depths.setdefault(picture.samples.bits, name)

    def warnings(self, learned: Sequence[OkImage], bit_depth: int | None) -> list[str]:
        """Return the warnings, one for each kind.

        Args:
            learned: the images that the ROI has learned or excluded.
            bit_depth: bits of a sample of the camera, or None for those of the files.
        """
        warnings = []
        if self.narrow:
            others = len(self.narrow) - 1
            warnings.append(self.narrow[0] + (f" (and {others} more images alike)" if others else ""))
        if self.eight_bits:
            warnings.append(
                f"bit_depth: {bit_depth} bits, but {len(self.eight_bits)} images have 8 bits a sample and were read as "
                f"such, the first is {self.eight_bits[0]}"
            )
        before = {image.bits for image in learned if image.bits is not None}
        found = [f"{bits} bits ({name})" for bits, name in sorted(self.depths.items())]
        if len(found) > 1:
            warnings.append(f"bits a sample: the images of this request have {' and '.join(found)}")
        elif found and before and not before & self.depths.keys():
            had = " or ".join(str(bits) for bits in sorted(before))
            warnings.append(f"bits a sample: {found[0]} here, {had} bits in the images learned before")
        return warnings
