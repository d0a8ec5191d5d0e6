"""The mask of an ROI shape, with an error for clients."""

import numpy as np
from numpy.typing import NDArray

from gateway.errors import InvalidRequestError
from postprocess.roi_mask import Shape, ShapeError, rasterise


def mask_of(shape: Shape, size_wh: tuple[int, int]) -> NDArray[np.bool_]:
    """Return the mask of a shape, bool [H, W].

    Args:
        shape: in pixels of the image as sent.
        size_wh: `(W, H)` of that image.

    Raises:
        InvalidRequestError: the shape covers no pixel.
    """
    try:
        return rasterise(shape, size_wh)
    except ShapeError as error:
        raise InvalidRequestError(f"shape: {error}") from error
