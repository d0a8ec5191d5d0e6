"""Brightness and sharpness of an image, which a camera, a lamp or a lens changes: for drift, not for the verdict."""

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, slots=True)
class Look:
    """Brightness and sharpness of the network's input."""

    brightness: float
    """Mean of the green channel, 0 to 255."""
    sharpness: float
    """Root mean square of the differences between neighbouring pixels, divided by the brightness, so that light alone
    does not change it."""


def look(image: NDArray[np.uint8]) -> Look:
    """Measure the brightness and the sharpness of an image.

    Args:
        image: uint8 [H, W, 3] RGB.

    >>> look(np.full((4, 4, 3), 100, np.uint8))
    Look(brightness=100.0, sharpness=0.0)
    """
    green = cv2.extractChannel(image, 1)
    brightness = float(cv2.mean(green)[0])
    energy = cv2.norm(green[:, 1:], green[:, :-1], cv2.NORM_L2SQR) + cv2.norm(green[1:], green[:-1], cv2.NORM_L2SQR)
    return Look(brightness, float(np.sqrt(energy / green.size)) / max(brightness, 1.0))
