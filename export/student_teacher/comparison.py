"""Compare and score maps. Pure NumPy, since TensorRT's container has no torch."""

import numpy as np
from numpy.typing import NDArray

from gateway.networks.student_description import MapParity

SCORE_SHARE = 0.01


def robust_scores(maps: NDArray[np.float32]) -> NDArray[np.float64]:
    """Return the mean of the highest 1 % of each map: float32 [I, S, S] -> float64 [I]."""
    flat = maps.reshape(len(maps), -1).astype(np.float64)
    highest = max(1, round(SCORE_SHARE * flat.shape[1]))
    return np.asarray(np.partition(flat, -highest, axis=1)[:, -highest:].mean(axis=1))


def compare_maps(maps: NDArray[np.float32], expected: NDArray[np.float32], tolerance: float) -> MapParity:
    """Compare maps [I, S, S] with the expected maps. A value that is not finite counts as an error of 1e9."""
    error = _error(maps, expected)
    return MapParity(
        max_error=error,
        max_score_error=_error(robust_scores(maps), robust_scores(expected)),
        tolerance=tolerance,
        passed=error <= tolerance,
    )


def _error(found: NDArray[np.floating], expected: NDArray[np.floating]) -> float:
    """Return the largest deviation: absolute for values up to 1, relative for larger values."""
    deviation = np.abs(found.astype(np.float64) - expected) / np.maximum(1, np.abs(expected))
    return float(np.nan_to_num(deviation, nan=1e9, posinf=1e9).max())
