"""Paste defects of a stated size and contrast on OK images, to measure which are detected."""

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np
from numpy.typing import NDArray

from evaluation.defects import blob, disc, line, paste

Form = Literal["disc", "line", "blob"]
FORMS: tuple[Form, ...] = get_args(Form)
LINE_WIDTH_MM = 0.4
"""Width of a line. Its size is its length."""


@dataclass(frozen=True, slots=True)
class Defect:
    """A defect to paste."""

    form: Form
    size_mm: float
    """Diameter of a disc or a blob, length of a line."""
    contrast: float
    """Relative change of brightness; -0.5 halves it."""


def defects(sizes_mm: Sequence[float], contrasts: Sequence[float], forms: Sequence[Form] = FORMS) -> list[Defect]:
    """Return every form in every size and contrast.

    >>> len(defects([1, 2], [-0.5, -0.3]))
    12
    """
    return [Defect(*each) for each in itertools.product(forms, sizes_mm, contrasts)]


def pasted(image: NDArray[np.uint8], defect: Defect, mm_per_px: float, seed: Sequence[int]) -> NDArray[np.uint8]:
    """Return a copy of an image with a defect at a random place, all of it inside the image where it fits.

    Place, direction and waves depend on the seed alone. Defects with one seed are at one place.

    Args:
        image: uint8 [H, W] grey or [H, W, 3].
        defect: what to paste.
        mm_per_px: side of a pixel in mm.
        seed: numbers that determine the place.
    """
    height, width = image.shape[:2]
    random = np.random.default_rng(seed)
    place, direction = random.uniform(0, 1, 2), random.uniform(0, 2 * np.pi)
    size = defect.size_mm / mm_per_px
    reach = np.minimum(size / 2 + 1, np.array([width, height]) / 2)
    x, y = reach + place * (np.array([width, height]) - 2 * reach)
    centre = (float(x), float(y))
    if defect.form == "disc":
        coverage = disc((width, height), centre, size)
    elif defect.form == "blob":
        coverage = blob((width, height), centre, size, random)
    else:
        half = size / 2 * np.array([np.cos(direction), np.sin(direction)])
        ends = np.array([centre - half, centre + half])
        coverage = line((width, height), ends, LINE_WIDTH_MM / mm_per_px)
    return paste(image, coverage if image.ndim == 2 else coverage[..., None], defect.contrast)
