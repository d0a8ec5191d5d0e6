"""Convert arrays to the bytes of a file and back, without pickle."""

import io
from typing import Any

import numpy as np
from numpy.typing import NDArray


def npz_bytes(**arrays: NDArray[Any]) -> bytes:
    """Return named arrays as an ``.npz``. The same arrays give the same bytes."""
    buffer = io.BytesIO()
    np.savez(buffer, allow_pickle=False, **arrays)
    return buffer.getvalue()


def npy_bytes(array: NDArray[Any]) -> bytes:
    """Return one array as an ``.npy``."""
    buffer = io.BytesIO()
    np.save(buffer, array, allow_pickle=False)
    return buffer.getvalue()


def read_weights(data: bytes, token_hw: tuple[int, int]) -> NDArray[np.float32]:
    """Read spatial weights, float32 [h, w].

    Raises:
        ValueError: the array has another shape or dtype.
    """
    weights: NDArray[np.float32] = np.load(io.BytesIO(data), allow_pickle=False)
    if weights.dtype != np.float32 or weights.shape != token_hw:
        raise ValueError(f"spatial weights: {weights.dtype} {weights.shape}; expected float32 {token_hw}")
    return weights


def read_npz(data: bytes) -> dict[str, NDArray[Any]]:
    """Read an ``.npz`` without unpickling.

    Raises:
        ValueError: the data is not an ``.npz``.
    """
    try:
        with np.load(io.BytesIO(data), allow_pickle=False) as arrays:
            return dict(arrays)
    except Exception as error:  # a damaged zip may raise any exception
        raise ValueError(f"not an array file: {error}") from error
