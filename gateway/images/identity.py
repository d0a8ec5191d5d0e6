"""The identity of an image: its decoded pixels, whatever file they came in."""

import hashlib

import cv2
import numpy as np
from numpy.typing import NDArray


def pixel_digest(pixels: NDArray[np.uint8]) -> str:
    """Return the SHA-256 of an image's size and pixels.

    A grey image and a colour image with three equal channels are the same image: the network sees both alike.

    Args:
        pixels: uint8 [H, W] grey or [H, W, 3] RGB, upright, as `gateway.images.decoding` returns them.

    Returns:
        64 lower-case hexadecimal digits.

    >>> grey = np.array([[1, 2]], np.uint8)
    >>> pixel_digest(grey) == pixel_digest(np.dstack([grey] * 3))
    True
    >>> pixel_digest(grey) == pixel_digest(grey.T)
    False
    """
    if pixels.ndim == 3:
        red, green, blue = (cv2.extractChannel(pixels, i) for i in range(3))
        if np.array_equal(red, green) and np.array_equal(red, blue):
            pixels = np.asarray(red, np.uint8)
    shape = ",".join(map(str, pixels.shape))
    digest = hashlib.sha256(f"uint8[{shape}]".encode())
    digest.update(np.ascontiguousarray(pixels).data)
    return digest.hexdigest()
