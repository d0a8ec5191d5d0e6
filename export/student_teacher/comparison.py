"""How maps are compared and scored: pure NumPy, since not every runtime is where torch is."""

import numpy as np
from numpy.typing import NDArray

from gateway.networks.student_description import MapParity

SCORE_SHARE = 0.01


def robust_scores(maps: NDArray[np.float32]) -> NDArray[np.float64]:
    """Mean of the highest 1 % of each map [I, S, S], float64 [I]."""
    flat = maps.reshape(len(maps), -1).astype(np.float64)
    highest = max(1, round(SCORE_SHARE * flat.shape[1]))
    return np.asarray(np.partition(flat, -highest, axis=1)[:, -highest:].mean(axis=1))


def compare_maps(maps: NDArray[np.float32], expected: NDArray[np.float32], tolerance: float) -> MapParity:
    """Compare maps [I, S, S] with those expected; a value that is not finite is as far off as can be."""
    error = _error(maps, expected)
    return MapParity(
        max_error=error,
        max_score_error=_error(robust_scores(maps), robust_scores(expected)),
        tolerance=tolerance,
        passed=error <= tolerance,
    )


def _error(found: NDArray[np.floating], expected: NDArray[np.floating]) -> float:
    """Largest deviation: absolute on values up to 1, a share of the value above."""
    deviation = np.abs(found.astype(np.float64) - expected) / np.maximum(1, np.abs(expected))
    return float(np.nan_to_num(deviation, nan=1e9, posinf=1e9).max())
