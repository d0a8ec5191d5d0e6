"""Whether a decoded image shows anything, and whether it uses the range of its samples."""

import numpy as np
from numpy.typing import NDArray

from gateway.images.picture import Picture

_SLIVER = 8
"""Values that all lie within 1/8 of the range use a sliver of it."""
_SPARSE = 16
_CAMERA_DEPTHS = (8, 10, 12, 14)
"""Bits a sample that cameras have, besides 16."""


def why_nothing_shows(picture: Picture, network_input: NDArray[np.uint8] | None = None) -> str | None:
    """Return why an image shows nothing, or None where it shows something.

    An image shows nothing when it is fully transparent or when all its pixels are equal: the lamp is off, the cable
    is out, the exposure is wrong. A single hot pixel that vanishes in the network's input does not change that.

    Args:
        picture: the decoded image.
        network_input: uint8 [S, S, 3], made of it; None leaves it out.

    >>> from gateway.images.picture import Samples
    >>> black = np.zeros((2, 2), np.uint8)
    >>> why_nothing_shows(Picture(black, Samples.of(black, 8)))
    'every pixel has the value 0'
    """
    if picture.samples.is_transparent:
        return "every pixel is fully transparent"
    if not is_constant(picture.pixels):
        if network_input is not None and is_constant(network_input):
            return f"every pixel has the value {_shown(network_input)} once the image has the network's size"
        return None
    value = _shown(picture.pixels)
    samples = picture.samples
    if samples.smallest != samples.largest:
        return (
            f"every pixel has the value {value} after scaling to 8 bits: the file holds values from "
            f"{samples.smallest} to {samples.largest} of {_full_scale(picture)}"
        )
    return f"every pixel has the value {value}"


def _shown(pixels: NDArray[np.uint8]) -> str:
    """Return the value of the first pixel: one number for grey, three for colour."""
    values = ", ".join(map(str, np.atleast_1d(pixels[0, 0]).tolist()))
    return f"({values})" if pixels.ndim == 3 else values


def is_constant(pixels: NDArray[np.uint8]) -> bool:
    """Return whether all pixels of an image are equal, uint8 [H, W] or [H, W, C].

    >>> is_constant(np.array([[5, 5, 6]], np.uint8))
    False
    """
    first = pixels[0, 0]
    if (pixels[::_SPARSE, ::_SPARSE] != first).any():  # nearly every image, at a hundredth of the cost
        return False
    return bool((pixels == first).all())


def narrow_range(picture: Picture) -> str | None:
    """Return a warning for an image that uses a sliver of its range, or None.

    An image uses a sliver when all values lie within 1/8 of the range. So does a file of more than 8 bits whose values
    fit the bits of a lesser camera, where no `bit_depth` is stated: 12 bits in a 16-bit file.

    >>> from gateway.images.picture import Samples
    >>> stored = np.array([[0, 4095]], np.uint16)
    >>> narrow_range(Picture((stored // 257).astype(np.uint8), Samples.of(stored, 16)))
    'values from 0 to 4095 of 0 to 65535: 12 bits hold them. If the camera has 12 bits, send bit_depth=12'
    >>> flat = np.array([[100, 131]], np.uint8)
    >>> narrow_range(Picture(flat, Samples.of(flat, 8)))
    'values from 100 to 131 of 0 to 255: less than 1/8 of the range. Check the exposure and the lighting'
    """
    samples = picture.samples
    full = _full_scale(picture)
    found = f"values from {samples.smallest} to {samples.largest} of 0 to {full}"
    fitting = next((depth for depth in _CAMERA_DEPTHS if samples.highest < 1 << depth), None)
    if fitting is not None and fitting < samples.bits and picture.bit_depth is None:
        return f"{found}: {fitting} bits hold them. If the camera has {fitting} bits, send bit_depth={fitting}"
    if (samples.largest - samples.smallest) * _SLIVER < full:
        return f"{found}: less than 1/{_SLIVER} of the range. Check the exposure and the lighting"
    return None


def exceeded_depth(picture: Picture) -> str | None:
    """Return what is wrong with the stated `bit_depth` of an image, or None.

    The values exceed it, so that they were cut; or the file has 8 bits a sample, to which no bit depth applies.

    >>> from gateway.images.picture import Samples
    >>> stored = np.array([[0, 60000]], np.uint16)
    >>> exceeded_depth(Picture(np.array([[0, 255]], np.uint8), Samples.of(stored, 16), bit_depth=12))
    'values up to 60000 are more than the 4095 of bit_depth=12: they were cut to it'
    """
    depth, samples = picture.bit_depth, picture.samples
    if depth is None:
        return None
    if samples.bits <= 8 < depth:
        return f"the file has 8 bits a sample, not bit_depth={depth}: it was read as 8 bits"
    if samples.bits > 8 and samples.highest >= 2**depth:
        return (
            f"values up to {samples.highest} are more than the {2**depth - 1} of bit_depth={depth}: they were cut to it"
        )
    return None


def _full_scale(picture: Picture) -> int:
    depth, bits = picture.bit_depth, picture.samples.bits
    return (1 << (bits if depth is None or bits <= 8 else depth)) - 1
