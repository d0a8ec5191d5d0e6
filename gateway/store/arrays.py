"""Arrays to the bytes of a file and back. Nothing is pickled, nothing unpickled."""

import io
from typing import Any

import numpy as np
from numpy.typing import NDArray


def npz_bytes(**arrays: NDArray[Any]) -> bytes:
    """Named arrays as an ``.npz``: the same arrays give the same bytes."""
    buffer = io.BytesIO()
    np.savez(buffer, allow_pickle=False, **arrays)
    return buffer.getvalue()


def npy_bytes(array: NDArray[Any]) -> bytes:
    """One array as an ``.npy``."""
    buffer = io.BytesIO()
    np.save(buffer, array, allow_pickle=False)
    return buffer.getvalue()


def read_weights(data: bytes, token_hw: tuple[int, int]) -> NDArray[np.float32]:
    """Read spatial weights, float32 [h, w].

    Raises:
        ValueError: not such an array.
    """
    weights: NDArray[np.float32] = np.load(io.BytesIO(data), allow_pickle=False)
    if weights.dtype != np.float32 or weights.shape != token_hw:
        raise ValueError(f"spatial weights: {weights.dtype} {weights.shape}; expected float32 {token_hw}")
    return weights


def read_npz(data: bytes) -> dict[str, NDArray[Any]]:
    """Read an ``.npz`` without unpickling.

    Raises:
        ValueError: not one.
    """
    try:
        with np.load(io.BytesIO(data), allow_pickle=False) as arrays:
            return dict(arrays)
    except Exception as error:  # a damaged zip raises whatever its bytes lead to
        raise ValueError(f"not an array file: {error}") from error
