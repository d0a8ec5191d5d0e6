"""The memory bank as a detector: the distance of each token to its nearest OK tokens."""

from collections.abc import Mapping
from typing import ClassVar, Self

import numpy as np
from numpy.typing import NDArray

from gateway.detectors.base import OkPatch
from gateway.detectors.memory_bank.bank import MemoryBank, patch_distances
from gateway.detectors.memory_bank.search.backend import SearchBackend, build_search
from gateway.detectors.memory_bank.search.faiss_search import FaissSearch, faiss_available
from gateway.detectors.memory_bank.search.projection import Projection
from gateway.detectors.memory_bank.search.protocol import NeighbourSearch
from gateway.networks import TokenEngine
from gateway.networks.registry import EngineRegistry
from gateway.store.arrays import npz_bytes, view_npz
from gateway.store.manifest import INDEX, MEMORY, SEARCH, FileName, Manifest


class MemoryBankDetector:
    """PatchCore: see `Detector`."""

    mismatch_hint: ClassVar[str | None] = None

    def __init__(self, bank: MemoryBank, search: NeighbourSearch, manifest: Manifest) -> None:
        self.bank = bank
        self.search = search
        self._manifest = manifest
        digests = (digest for image in manifest.images for digest in (image.sha256, image.pixels_sha256))
        self._learned = frozenset(digest for digest in digests if digest is not None)

    @classmethod
    def load(cls, files: Mapping[FileName, bytes], manifest: Manifest, search: SearchBackend) -> Self:
        """Read the bank and build its search.

        Raises:
            KeyError: a file or an array is missing.
            ValueError: a file does not hold what a fit writes.
        """
        arrays = view_npz(files[MEMORY])
        bank = MemoryBank(
            tokens=arrays["tokens"],
            image_index=arrays["image_index"],
            token_index=arrays["token_index"],
            covering_radius=manifest.covering_radius,
        )
        projection = Projection.from_bytes(files[SEARCH], bank.tokens) if SEARCH in files else None
        return cls(bank, build_search(bank.tokens, search, projection), manifest)

    @property
    def n_bytes(self) -> int:
        """See `Detector.n_bytes`."""
        return self.bank.n_bytes + self.search.n_bytes

    def files(self) -> dict[FileName, bytes]:
        """See `Detector.files`."""
        return bank_files(self.bank, self._manifest)

    def check(self) -> None:
        """See `Detector.check`."""
        bank, manifest = self.bank, self._manifest
        n = manifest.n_embeddings
        is_right = (
            bank.tokens.shape == (n, manifest.dim)
            and bank.tokens.dtype == np.float16
            and bool(np.isfinite(bank.tokens).all())
            and n > 0
            and _indexes(bank.image_index, n, len(manifest.images))
            and _indexes(bank.token_index, n, manifest.token_hw[0] * manifest.token_hw[1])
        )
        if not is_right:
            raise ValueError("the memory bank is not the one that the manifest describes")

    async def engine(self, engines: EngineRegistry) -> TokenEngine:
        """See `Detector.engine`."""
        return await engines.token_engine_of(self._manifest.input_size)

    def neighbours(self, asked: int | None) -> tuple[int, list[str]]:
        """See `Detector.neighbours`."""
        wanted = self._manifest.k if asked is None else asked
        used, fitted = min(wanted, len(self.bank)), min(self._manifest.k, len(self.bank))
        warnings = []
        if used != fitted:
            warnings.append(f"k: {used} here, {self._manifest.k} at the fit: scores and thresholds rest on that k")
        if wanted > used:
            warnings.append(f"k: {wanted} neighbours were asked for, but the memory bank has {used}: all were used")
        return used, warnings

    def distances(self, tokens: NDArray[np.float32], k: int) -> NDArray[np.float32]:
        """See `Detector.distances`."""
        return patch_distances(self.search, tokens, k)

    def nearest_ok_patch(self, token: NDArray[np.float32]) -> OkPatch:
        """See `Detector.nearest_ok_patch`."""
        row, distance = self.search.nearest(token)
        return OkPatch(int(self.bank.image_index[row]), int(self.bank.token_index[row]), distance)

    def has_learned(self, sha256: str) -> bool:
        """See `Detector.has_learned`."""
        return sha256 in self._learned


def bank_files(bank: MemoryBank, manifest: Manifest) -> dict[FileName, bytes]:
    """Return the files of a version with a memory bank. All others are always made from the tokens."""
    files: dict[FileName, bytes] = {
        MEMORY: npz_bytes(
            tokens=bank.tokens,
            image_index=bank.image_index,
            token_index=bank.token_index,
            token_hw=np.array(manifest.token_hw, np.int32),
            dim=np.array(manifest.dim, np.int32),
        )
    }
    projection = Projection.of(bank.tokens)
    if projection.n_bytes < bank.tokens.nbytes:  # a load computes that of a small bank in a few milliseconds
        files[SEARCH] = projection.to_bytes()
    if faiss_available():
        files[INDEX] = FaissSearch.build(bank.tokens).to_bytes()
    return files


def _indexes(index: NDArray[np.int32], n: int, below: int) -> bool:
    return index.shape == (n,) and index.dtype == np.int32 and bool(((index >= 0) & (index < below)).all())
