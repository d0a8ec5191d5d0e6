"""Small changes under which an OK image stays OK: those that a camera and a fixture make from part to part.

There is no flip and no rotation: a connector has an orientation, and one the wrong way round is not OK.
"""

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class Augmentation:
    """How far each change goes; each image gets its own, evenly spread over the range."""

    shift: float = 0.02
    """Largest shift along each axis, as a share of the image's side; what comes in at the edge is mirrored."""
    brightness: float = 0.1
    """Largest change of the mean, as a share of full scale."""
    contrast: float = 0.1
    """Largest change of the deviation from the image's own mean, as a share of it."""
    blur: float = 0.7
    """Largest sigma of a Gaussian, in pixels; every second image is blurred."""
    noise: float = 2.0
    """Largest standard deviation of the noise, in grey levels."""


def augmented(image: NDArray[np.uint8], generator: np.random.Generator, how: Augmentation) -> NDArray[np.float32]:
    """Change an image a little.

    Args:
        image: uint8 [S, S, 3].
        generator: what it draws from; the same one gives the same image.
        how: how far.

    Returns:
        float32 [S, S, 3], 0 to 255.
    """
    size = image.shape[0]
    dx, dy = generator.uniform(-how.shift, how.shift, 2) * size
    brightness = generator.uniform(-how.brightness, how.brightness) * 255
    contrast = 1 + generator.uniform(-how.contrast, how.contrast)
    sigma = generator.uniform(0, how.blur) * (generator.random() < 0.5)
    noise = generator.uniform(0, how.noise) * generator.standard_normal(image.shape, dtype=np.float32)

    changed = image.astype(np.float32)
    if how.shift:
        matrix = np.array([[1, 0, dx], [0, 1, dy]], np.float64)
        changed = cv2.warpAffine(
            changed, matrix, (size, size), flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REFLECT_101
        ).astype(np.float32, copy=False)
    if sigma > 0.1:  # a narrower one has no weight beside its middle
        changed = cv2.GaussianBlur(changed, (0, 0), sigma).astype(np.float32, copy=False)
    mean = changed.mean()
    return np.asarray(np.clip((changed - mean) * contrast + mean + brightness + noise, 0, 255), np.float32)
