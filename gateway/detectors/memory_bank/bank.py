"""The memory bank of one ROI: coreset tokens, where each came from, and distances to them."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from gateway.detectors.memory_bank.coreset import coreset_size, k_center_greedy
from gateway.detectors.memory_bank.search.neighbours import NeighbourSearch
from gateway.detectors.memory_bank.search.projected import ProjectedSearch
from gateway.detectors.memory_bank.threads import split_rows


@dataclass(frozen=True, slots=True)
class MemoryBank:
    """Coreset of the OK tokens of one ROI."""

    tokens: NDArray[np.float16]
    """[M, D], in the order of choice."""
    image_index: NDArray[np.int32]
    """[M]: which OK image, in the order of the manifest, each centre came from."""
    token_index: NDArray[np.int32]
    """[M]: which token of that image, counted along rows."""
    covering_radius: float

    def __len__(self) -> int:
        return len(self.tokens)

    @property
    def n_bytes(self) -> int:
        """Memory held."""
        return self.tokens.nbytes + self.image_index.nbytes + self.token_index.nbytes


def build_memory_bank(tokens: NDArray[np.float16], rate: float, seed: int) -> MemoryBank:
    """Thin the tokens of all OK images to a coreset.

    Args:
        tokens: float16 [I, N, D] of I images. The bank is built from the stored precision, so that it comes out the
            same whether an image was sent just now or learned from before.
        rate: share of tokens to keep, 0 < rate ≤ 1.
        seed: of the first centre.
    """
    n_images, n_tokens, dim = tokens.shape
    flat = tokens.reshape(n_images * n_tokens, dim)
    coreset = k_center_greedy(flat, coreset_size(len(flat), rate), seed)
    return MemoryBank(
        tokens=flat[coreset.indices],
        image_index=(coreset.indices // n_tokens).astype(np.int32),
        token_index=(coreset.indices % n_tokens).astype(np.int32),
        covering_radius=coreset.covering_radius,
    )


def patch_distances(search: NeighbourSearch, tokens: NDArray[np.float32], k: int) -> NDArray[np.float32]:
    """Distance of each token to the bank: the mean of its k nearest.

    Args:
        search: over a bank of at least k tokens.
        tokens: float32 [N, D].
        k: neighbours.

    Returns:
        float32 [N], 0–2.
    """
    return _mean(search.search(tokens, k))


def leave_one_out_distances(bank: MemoryBank, tokens: NDArray[np.float16], k: int) -> NDArray[np.float32] | None:
    """Distances of each OK image's tokens to the bank without its own centres.

    What an unseen OK image would be measured against: the centres that the image itself gave are not there, and where
    that leaves a hole, the distance is the one to what is left.

    Args:
        bank: built from `tokens`.
        tokens: float16 [I, N, D].
        k: neighbours.

    Returns:
        float32 [I, N], or None where some image is alone in the bank, so that nothing is left to measure against.
    """
    distances = np.empty(tokens.shape[:2], np.float32)
    own = [np.flatnonzero(bank.image_index == image) for image in range(len(tokens))]
    if max(map(len, own)) == len(bank):
        return None
    search = ProjectedSearch(bank.tokens)

    def measure(start: int, stop: int) -> None:
        for image in range(start, stop):
            found = search.search(tokens[image].astype(np.float32), min(k, len(bank) - len(own[image])), own[image])
            distances[image] = _mean(found)

    split_rows(measure, len(tokens), at_most=4, at_least=1)
    return distances


def _mean(distances: NDArray[np.float32]) -> NDArray[np.float32]:
    """Of the neighbours, float32 [N, k] -> [N]."""
    return distances[:, 0] if distances.shape[1] == 1 else distances.mean(axis=1)
