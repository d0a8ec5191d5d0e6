"""The memory bank of one ROI: its coreset of OK tokens, the source of each, and the distances to them."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from gateway.detectors.memory_bank.coreset import Coreset, coreset_size, k_center_greedy
from gateway.detectors.memory_bank.search.projected import ProjectedSearch
from gateway.detectors.memory_bank.search.protocol import NeighbourSearch
from gateway.detectors.memory_bank.threads import split_rows
from gateway.detectors.memory_bank.token_file import ArrayTokens, ImageTokens

_MANY_TOKENS = 2048
"""Tokens of an image from which on images are measured one after another, so that threads do not hold one each."""


@dataclass(frozen=True, slots=True)
class MemoryBank:
    """The coreset of the OK tokens of one ROI."""

    tokens: NDArray[np.float16]
    """[M, D], in the order in which the coreset chose them."""
    image_index: NDArray[np.int32]
    """[M]: the OK image of each centre, counted in the order of the manifest."""
    token_index: NDArray[np.int32]
    """[M]: the position of each centre in its image's token grid, counted along rows."""
    covering_radius: float
    """Distance of the farthest OK token to its nearest centre, 0–2."""

    def __len__(self) -> int:
        return len(self.tokens)

    @property
    def n_bytes(self) -> int:
        """Memory that the bank holds, in bytes."""
        return self.tokens.nbytes + self.image_index.nbytes + self.token_index.nbytes


def build_memory_bank(
    tokens: NDArray[np.float16] | ImageTokens,
    rate: float,
    seed: int,
    inside: NDArray[np.bool_] | None = None,
    on_progress: Callable[[int, int], None] | None = None,
) -> MemoryBank:
    """Reduce the tokens of all OK images to a coreset.

    Args:
        tokens: float16 [I, N, D] of I images, an array or a file. This is the stored precision: new images and images
            of earlier fits give the same bank.
        rate: share of the tokens to keep, 0 < rate ≤ 1. A rate of 1 keeps every token in its order, without a coreset.
        seed: seed that draws the first centre.
        inside: [I, N], the tokens that may enter the bank, at least one; None for all.
        on_progress: is called with the number of centres so far and in the end.
    """
    tokens = ArrayTokens(tokens) if isinstance(tokens, np.ndarray) else tokens
    n_tokens = tokens.shape[1]
    candidates = None if inside is None or inside.all() else np.flatnonzero(inside)
    rows = tokens.rows(candidates)
    n_rows = rows.shape[0]
    if rate == 1:
        coreset = Coreset(np.arange(n_rows), covering_radius=0.0)
    else:
        coreset = k_center_greedy(rows, coreset_size(n_rows, rate), seed, on_progress)
    indices = coreset.indices if candidates is None else candidates[coreset.indices]
    return MemoryBank(
        tokens=np.asarray(rows[coreset.indices], np.float16),
        image_index=(indices // n_tokens).astype(np.int32),
        token_index=(indices % n_tokens).astype(np.int32),
        covering_radius=coreset.covering_radius,
    )


def patch_distances(search: NeighbourSearch, tokens: NDArray[np.float32], k: int) -> NDArray[np.float32]:
    """Return the distance of each token to the bank: the mean distance to its k nearest centres.

    Args:
        search: the search in a bank of at least k tokens.
        tokens: float32 [N, D].
        k: number of neighbours.

    Returns:
        float32 [N], 0–2.
    """
    return _mean(search.search(tokens, k))


def leave_one_out_distances(
    bank: MemoryBank,
    tokens: NDArray[np.float16] | ImageTokens,
    k: int,
    on_progress: Callable[[int, int], None] | None = None,
) -> NDArray[np.float32] | None:
    """Return the distances of each OK image's tokens to the bank without the centres of that image.

    They estimate the distances of an unseen OK image, which has no centres of its own in the bank.

    Args:
        bank: the bank built from `tokens`.
        tokens: float16 [I, N, D], an array or a file.
        k: number of neighbours.
        on_progress: is called with the number of images so far and of all; by several threads.

    Returns:
        float32 [I, N], or None where all centres come from one image, so that no centre is left for it.
    """
    source = ArrayTokens(tokens) if isinstance(tokens, np.ndarray) else tokens
    n_images, n_tokens, _ = source.shape
    distances = np.empty((n_images, n_tokens), np.float32)
    own = [np.flatnonzero(bank.image_index == image) for image in range(n_images)]
    if max(map(len, own)) == len(bank):
        return None
    search = ProjectedSearch(bank.tokens)
    measured: list[int] = []

    def measure(start: int, stop: int) -> None:
        for image in range(start, stop):
            found = search.search(
                source.image(image).astype(np.float32), min(k, len(bank) - len(own[image])), own[image]
            )
            distances[image] = _mean(found)
            measured.append(image)
            if on_progress is not None:
                on_progress(len(measured), n_images)

    # The search of many tokens shares them among the threads itself.
    split_rows(measure, n_images, at_most=4, at_least=1 if n_tokens < _MANY_TOKENS else n_images)
    return distances


def _mean(distances: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return the mean over the neighbours, float32 [N, k] -> [N]."""
    return distances[:, 0] if distances.shape[1] == 1 else distances.mean(axis=1)
