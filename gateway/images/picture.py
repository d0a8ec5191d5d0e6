"""A decoded image, with what its file held before it was scaled to 8 bits."""

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

StoredSamples = NDArray[np.uint8] | NDArray[np.uint16]


@dataclass(frozen=True, slots=True, eq=False)
class Stored:
    """The samples of a file as they are stored, before they are scaled to 8 bits and turned upright."""

    colour: StoredSamples
    """[H, W] grey or [H, W, 3] RGB."""
    bits: int
    """Bits of a sample: 8 for uint8, 9 to 16 for uint16."""
    alpha: StoredSamples | None = None
    """[H, W], of the same type as `colour`; None for an opaque image."""
    is_premultiplied: bool = False
    """Whether `colour` is blended over black already."""


@dataclass(frozen=True, slots=True)
class Samples:
    """The colour samples of a file as stored, before they are scaled to 8 bits. Alpha does not count."""

    bits: int
    """Bits of a sample in the file: 8 for anything of up to 8 bits, else 9 to 16."""
    smallest: int
    largest: int
    """Of the channel whose values lie farthest apart, 0 to 2^bits - 1."""
    highest: int
    """Largest value of any channel."""
    is_transparent: bool = False
    """Whether every pixel has alpha 0."""

    @classmethod
    def of(cls, stored: StoredSamples, bits: int, *, is_transparent: bool = False) -> "Samples":
        """Measure stored samples, uint8 or uint16 [H, W] or [H, W, C] without alpha.

        >>> Samples.of(np.array([[3, 250]], np.uint8), 8)
        Samples(bits=8, smallest=3, largest=250, highest=250, is_transparent=False)
        """
        channels = [stored] if stored.ndim == 2 else [cv2.extractChannel(stored, i) for i in range(stored.shape[2])]
        ranges = [(int(channel.min()), int(channel.max())) for channel in channels]
        smallest, largest = max(ranges, key=lambda found: found[1] - found[0])
        return cls(bits, smallest, largest, max(high for _, high in ranges), is_transparent)


@dataclass(frozen=True, slots=True, eq=False)
class Picture:
    """A decoded image."""

    pixels: NDArray[np.uint8]
    """[H, W] for a grey image, [H, W, 3] RGB for any other; upright."""
    samples: Samples
    bit_depth: int | None = None
    """The camera's bits a sample, where they were stated: samples were divided by 2^bit_depth - 1."""
