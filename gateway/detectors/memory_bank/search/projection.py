"""A memory bank in its principal directions: what `ProjectedSearch` filters by. A version stores it."""

from dataclasses import dataclass
from typing import Self

import numpy as np
from numpy.typing import NDArray

from gateway.detectors.memory_bank.threads import split_rows
from gateway.store.arrays import as_float32, npz_bytes, view_npz

GROUP = 16
"""The columns are padded to a multiple of this number."""
PADDING = np.float32(1e38)
"""Half the squared norm of a column that stands for no row."""
_ROWS_A_DIRECTION = 8
"""Rows of the bank that principal directions are computed from, for each direction; fewer would fit the rows alone."""
_SPARE = 8
"""Directions computed besides those kept: they make the others accurate."""
_DIRECTIONS = (32, 64, 96, 128, 192, 256)
_RESIDUAL = 0.09
"""Share of the variance that the directions may leave out. This share is the fastest for banks of 700 to 50 000 tokens
of tiles; half or twice as many directions cost a fifth more."""


@dataclass(frozen=True, slots=True, eq=False)
class Projection:
    """The rows of a bank [M, D], projected on d orthonormal directions."""

    directions: NDArray[np.float32]
    """[D, d], orthonormal columns."""
    shift: NDArray[np.float32]
    """[d], the mean of the projected rows."""
    columns: NDArray[np.float32]
    """[d + 1, P], P ≥ M a multiple of `GROUP`: each column is a projected row without `shift`, and below it half the
    squared norm of this column, which is `PADDING` for columns beyond M."""
    norm: float
    """Largest norm of a row of the bank."""

    @classmethod
    def of(cls, bank: NDArray[np.floating]) -> Self:
        """Project a bank, float16 or float32 [M, D], M ≥ 1. The same bank gives the same projection."""
        size = len(bank)
        directions = _principal_directions(bank)
        projected = np.empty((size, directions.shape[1]), np.float32)
        norms = np.empty(size, np.float32)

        def project(start: int, stop: int) -> None:
            rows = as_float32(bank[start:stop])
            np.matmul(rows, directions, out=projected[start:stop])
            np.einsum("md,md->m", rows, rows, out=norms[start:stop])

        split_rows(project, size, at_most=1024)
        shift = projected.mean(axis=0)
        projected -= shift
        columns = np.zeros((projected.shape[1] + 1, -(-size // GROUP) * GROUP), np.float32)
        columns[:-1, :size] = projected.T
        columns[-1, :size] = np.einsum("md,md->m", projected, projected) / 2
        columns[-1, size:] = PADDING
        return cls(directions, shift, columns, float(np.sqrt(norms.max())))

    @classmethod
    def from_bytes(cls, data: bytes, bank: NDArray[np.floating]) -> Self:
        """Read the bytes that `to_bytes` returned for the projection of the same bank.

        Raises:
            KeyError: an array is missing.
            ValueError: not a projection of a bank of this size.
        """
        arrays = view_npz(data)
        directions, columns = arrays["directions"], arrays["columns"]
        size, dim = bank.shape
        n = directions.shape[-1]
        expected = {
            "directions": (dim, n),
            "shift": (n,),
            "columns": (n + 1, -(-size // GROUP) * GROUP),
            "norm": (),
        }
        for name, shape in expected.items():
            if arrays[name].shape != shape or arrays[name].dtype != np.float32:
                raise ValueError(f"{name}: {arrays[name].dtype} {arrays[name].shape}; expected float32 {shape}")
        return cls(directions, arrays["shift"], columns, float(arrays["norm"]))

    def to_bytes(self) -> bytes:
        """Return the arrays as an ``.npz``."""
        return npz_bytes(
            directions=self.directions, shift=self.shift, columns=self.columns, norm=np.array(self.norm, np.float32)
        )

    @property
    def n_bytes(self) -> int:
        """Memory that it holds, in bytes."""
        return self.directions.nbytes + self.shift.nbytes + self.columns.nbytes


def _principal_directions(bank: NDArray[np.floating]) -> NDArray[np.float32]:
    """Return orthonormal columns, float32 [D, d], that hold most of the bank's variance; d is D where fewer do not.

    Any orthonormal columns give a valid bound, so that approximate principal directions suffice: one step of subspace
    iteration from seeded noise (Halko, Martinsson and Tropp, "Finding structure with randomness", 2011, algorithm 4.4)
    takes a few milliseconds, where all eigenvectors of 768 dimensions take a hundred.
    """
    size, dim = bank.shape
    for largest in (64, _DIRECTIONS[-1]):
        wanted = [n for n in _DIRECTIONS if n <= largest and n + _SPARE < dim]
        if not wanted:
            break
        rows = np.linspace(0, size - 1, min(size, _ROWS_A_DIRECTION * largest)).astype(np.intp)
        sample = bank[rows].astype(np.float32)
        with np.errstate(over="ignore", invalid="ignore"):
            sample -= sample.mean(axis=0)
            total = float(np.einsum("sd,sd->", sample, sample))
        if not np.isfinite(total):  # queries of a bank that overflows are compared with the whole bank
            break
        directions, variances = _leading_directions(sample, wanted[-1] + _SPARE)
        left_out = 1 - np.cumsum(variances) / max(total, float(np.finfo(np.float32).tiny))
        for n in wanted:
            if left_out[n - 1] <= _RESIDUAL:
                return np.ascontiguousarray(directions[:, :n])
    return np.eye(dim, dtype=np.float32)


def _leading_directions(sample: NDArray[np.float32], n: int) -> tuple[NDArray[np.float32], NDArray[np.float64]]:
    """Return orthonormal columns, float32 [D, n], and the variance of each, largest first."""
    noise = np.random.default_rng(0).standard_normal((sample.shape[1], n), np.float32)
    columns, _ = np.linalg.qr(sample.T @ (sample @ noise))
    projected = (sample @ columns).astype(np.float64)
    variances, rotation = np.linalg.eigh(projected.T @ projected)
    return columns @ rotation[:, ::-1].astype(np.float32), variances[::-1]
