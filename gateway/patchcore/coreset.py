"""k-center greedy: the coreset whose farthest token is as near as a greedy choice can make it."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

_SAME = 1e-6
"""Squared distance under which two tokens are one: fp32 rounding of a product of unit vectors."""


@dataclass(frozen=True, slots=True)
class Coreset:
    """Which tokens were chosen, in the order of choice, and how far the farthest token is from them (0–2)."""

    indices: NDArray[np.int64]
    covering_radius: float


def coreset_size(n_tokens: int, rate: float) -> int:
    """Centres for a rate: the nearest whole number, and at least one."""
    return min(n_tokens, max(1, round(n_tokens * rate)))


def k_center_greedy(tokens: NDArray[np.float32], n_centres: int, seed: int) -> Coreset:
    """Choose centres greedily, each the token farthest from those before it.

    Exact, as in Sener and Savarese, "Active Learning for Convolutional Neural Networks: A Core-Set Approach" (2018),
    which PatchCore uses; no random projection. The first centre is drawn by the seed and belongs to the coreset. Ties
    go to the lowest index. Where fewer than `n_centres` tokens differ, there are no more centres than that.

    Args:
        tokens: float32 [N, D], near unit norm.
        n_centres: at most N.
        seed: of the first centre.

    Returns:
        Indices int64 [M], M ≤ n_centres, and the covering radius (Euclidean).
    """
    n = len(tokens)
    first = int(np.random.default_rng(seed).integers(n))
    squares = np.einsum("nd,nd->n", tokens, tokens)
    nearest = np.full(n, np.inf, np.float32)
    indices = np.empty(n_centres, np.int64)
    farthest = first
    for chosen in range(n_centres):
        if chosen and nearest[farthest] <= _SAME:
            indices = indices[:chosen]
            break
        indices[chosen] = farthest
        squared = tokens @ tokens[farthest]
        squared *= -2.0
        squared += squares
        squared += squares[farthest]
        np.minimum(nearest, squared, out=nearest)
        nearest[farthest] = 0.0
        farthest = int(np.argmax(nearest))
    return Coreset(indices, float(np.sqrt(max(0.0, float(nearest[farthest])))))
