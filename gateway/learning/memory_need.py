"""The memory that a fit takes, estimated before it starts."""

import math

from gateway.detectors.memory_bank.coreset import coreset_size
from gateway.errors import TooLargeError
from gateway.images.tiling import Tiling
from gateway.store.roi_key import RoiKey

_FIXED = 200 * 2**20
"""Blocks of tokens and distances, and the network's batches: the same for every fit."""
_PER_TOKEN_OF_AN_IMAGE_AND_DIMENSION = 18
"""The tokens of one image: as the network returns them for its tiles, together, and stitched."""
_PER_TOKEN = 64
"""What the coreset keeps of a token: its distance, its nearest centre and the order of tokens."""
_PER_CENTRE_AND_DIMENSION = 16
"""The centres, the search that leave-one-out distances take, and the files of the version."""


def memory_of_fit(n_images: int, coreset_rate: float, n_tokens: int, dim: int) -> int:
    """Return the memory that a fit takes at its peak, in bytes.

    It is on the high side: fits of 120, 480 and 2000 images of 729 tokens with 768 dimensions at a rate of 0.02 took
    0.02, 0.20 and 0.46 GB; the estimates are 0.25, 0.33 and 0.67 GB. Two images of 64 tiles took 0.66 GB; the estimate
    is 0.74 GB.

    Args:
        n_images: OK images that the ROI has after the fit.
        coreset_rate: share of the tokens kept.
        n_tokens: tokens of an image.
        dim: dimension of a token.
    """
    n_rows = n_images * n_tokens
    centres = coreset_size(n_rows, coreset_rate)
    of_an_image = _PER_TOKEN_OF_AN_IMAGE_AND_DIMENSION * n_tokens * dim
    return _FIXED + of_an_image + _PER_TOKEN * n_rows + _PER_CENTRE_AND_DIMENSION * dim * centres


def require_affordable(
    key: RoiKey, memory: int, limit: int, n_images: int, coreset_rate: float, tiling: Tiling
) -> None:
    """Refuse a fit that takes more memory than fits may take.

    Args:
        key: the ROI.
        memory: that of the fit, in bytes.
        limit: `Settings.max_fit_memory_bytes`.
        n_images: OK images that the ROI has after the fit.
        coreset_rate: share of the tokens kept.
        tiling: how images are cut.

    Raises:
        TooLargeError: names both.
    """
    if memory > limit:
        tiles = f" of {tiling.n_tiles} tiles each" if tiling.n_tiles > 1 else ""
        fewer = ", with fewer tiles" if tiling.n_tiles > 1 else ""
        raise TooLargeError(
            f"{key}: a fit of {n_images} images{tiles} at coreset_rate {coreset_rate:g} takes about "
            f"{math.ceil(memory / 1e6)} MB of memory; the limit is {math.floor(limit / 1e6)} MB",
            f"Fit with a lower coreset_rate{fewer}, or raise GATEWAY_MAX_FIT_MEMORY_BYTES.",
        )
