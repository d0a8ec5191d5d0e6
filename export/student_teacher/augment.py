"""Change an OK image slightly, as a camera and a fixture do from part to part, so that it stays OK.

There is no flip and no rotation, since a connector in the wrong orientation is not OK.
"""

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class Augmentation:
    """The size of each change. Each image gets its own value, uniform over the range."""

    shift: float = 0.02
    """Largest shift along each axis, as a share of the side of the image. The edge is filled by mirroring."""
    brightness: float = 0.1
    """Largest change of the mean, as a share of full scale."""
    contrast: float = 0.1
    """Largest change of the deviation from the mean of the image, as a share of the deviation."""
    blur: float = 0.7
    """Largest sigma of a Gaussian blur, in pixels. Every second image is blurred, on average."""
    noise: float = 2.0
    """Largest standard deviation of the noise, in grey levels."""


def augmented(image: NDArray[np.uint8], generator: np.random.Generator, how: Augmentation) -> NDArray[np.float32]:
    """Change an image slightly.

    Args:
        image: uint8 [S, S, 3].
        generator: of the random values. The same generator gives the same image.
        how: the size of the changes.

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
    if sigma > 0.1:  # a narrower kernel has no effect
        changed = cv2.GaussianBlur(changed, (0, 0), sigma).astype(np.float32, copy=False)
    mean = changed.mean()
    return np.asarray(np.clip((changed - mean) * contrast + mean + brightness + noise, 0, 255), np.float32)
