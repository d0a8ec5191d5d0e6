"""A small data set in MVTec layout: grey squares, some with a bright patch."""

from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from tests.gateway.brightness_engine import PATCH, SIDE

N_TRAIN, N_GOOD = 6, 4


def tile(grey: int, spot: tuple[int, int] | None = None) -> NDArray[np.uint8]:
    """One grey with a brighter and a darker pixel in each patch, so that the picture is not constant."""
    pixels = np.full((SIDE, SIDE), grey, np.uint8)
    pixels[::PATCH, ::PATCH] += 1
    pixels[::PATCH, 1::PATCH] -= 1
    if spot is not None:
        pixels[spot[0] * PATCH : (spot[0] + 1) * PATCH, spot[1] * PATCH : (spot[1] + 1) * PATCH] = grey + 60
    return pixels


def mask(spot: tuple[int, int] | None) -> NDArray[np.uint8]:
    pixels = np.zeros((SIDE, SIDE), np.uint8)
    if spot is not None:
        pixels[spot[0] * PATCH : (spot[0] + 1) * PATCH, spot[1] * PATCH : (spot[1] + 1) * PATCH] = 255
    return pixels


def write(path: Path, pixels: NDArray[np.uint8]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    cv2.imwrite(str(path), pixels)
    return path


def data_set(folder: Path) -> Path:
    """Six OK images of grey 100 to 105 to learn; OK images between them, and NG images, one without a mask."""
    for i in range(N_TRAIN):
        write(folder / "train" / "good" / f"{i}.png", tile(100 + i))
    for i in range(N_GOOD):
        good = tile(101 + i)
        good[0, 0] += 1  # otherwise it equals a learned one
        write(folder / "test" / "good" / f"{i}.png", good)
    for i in range(3):
        write(folder / "test" / "spot" / f"{i}.png", tile(101, (i, 1)))
        write(folder / "ground_truth" / "spot" / f"{i}_mask.png", mask((i, 1)))
    write(folder / "test" / "pale" / "0.png", tile(150))
    write(folder / "ground_truth" / "pale" / "0_mask.png", mask(None))
    return folder
