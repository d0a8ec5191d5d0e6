"""Exact nearest neighbours by a lower bound from a short matrix product."""

import numpy as np
from numpy.typing import NDArray

from gateway.detectors.memory_bank.search.measured import nearest_of
from gateway.detectors.memory_bank.threads import split_rows

_ROUNDING = 2.0**-24
_ROWS_A_DIRECTION = 8
"""Rows of the bank that principal directions are computed from, for each direction; fewer would fit the rows alone."""
_SPARE = 8
"""Directions computed besides those kept: they make the others accurate."""
_DIRECTIONS = (32, 64, 96, 128, 192, 256)
_RESIDUAL = 0.09
"""Share of the variance that the directions may leave out. This share is the fastest for banks of 700 to 50 000 tokens
of tiles; half or twice as many directions cost a fifth more."""
_GROUP = 16
_PADDING = np.float32(1e38)
_TOO_MANY = 16
"""A query with more than 1/16 of the bank as candidates is faster to compare with the whole bank."""
_TOO_FEW = 64
"""So is every query of a bank with fewer tokens per neighbour than this."""
_BLOCK = 8 << 20
"""Bounds that one thread holds at once: 32 MiB."""


class ProjectedSearch:
    """Filter by distances in the bank's principal directions, then measure the remaining candidates.

    A projection on orthonormal directions never lengthens a vector: ‖P(q − c)‖ ≤ ‖q − c‖. Tokens of one ROI lie so
    near to a low-dimensional plane that this bound, from 64 of 768 dimensions, leaves about 10 of 10 000 candidates.
    For each query:

    1. One matrix product gives the bounds to the whole bank; their minima are taken over groups of 16 rows.
    2. The k groups with the smallest minima give k rows of the bank; the distances to these limit the k-th distance.
    3. Every row whose bound is within that limit is measured as the norm of the difference in float32.

    No row that could be among the k nearest is left out. The limit is widened by the worst case of rounding (Higham,
    "Accuracy and Stability of Numerical Algorithms", 2002, §3.1). Queries that keep too many candidates, or whose
    bounds overflow, are compared with the whole bank in float64, and so are all queries of a small bank.
    """

    name = "numpy-projected"

    def __init__(self, bank: NDArray[np.floating]) -> None:
        """Prepare a bank, float [M, D], M ≥ 1. A float32 bank is kept as it is, any other as a float32 copy."""
        size, dim = bank.shape
        self._directions = _principal_directions(bank)
        self._bank = bank if bank.dtype == np.float32 and bank.flags.c_contiguous else np.empty((size, dim), np.float32)
        projected = np.empty((size, self._directions.shape[1]), np.float32)
        norms = np.empty(size, np.float32)

        def prepare(start: int, stop: int) -> None:
            rows = self._bank[start:stop]
            if self._bank is not bank:
                rows[...] = bank[start:stop]
            np.matmul(rows, self._directions, out=projected[start:stop])
            np.einsum("md,md->m", rows, rows, out=norms[start:stop])

        split_rows(prepare, size, at_most=1024)
        self._shift = projected.mean(axis=0)
        projected -= self._shift
        squares = np.einsum("md,md->m", projected, projected)
        padded = -(-size // _GROUP) * _GROUP
        # Columns of the product: the projected bank, with half its squared norms in the last row.
        self._columns = np.zeros((projected.shape[1] + 1, padded), np.float32)
        self._columns[:-1, :size] = projected.T
        self._columns[-1, :size] = squares / 2
        self._columns[-1, size:] = _PADDING
        self._projected_norm = float(np.sqrt(squares.max()))
        self._norm = float(np.sqrt(norms.max()))
        n = projected.shape[1]
        self._projection_error = 1.01 * np.sqrt(n) * (dim + 2) * _ROUNDING
        self._product_error = 1.01 * 4 * (n + 4) * _ROUNDING

    @property
    def n_bytes(self) -> int:
        """See `NeighbourSearch.n_bytes`."""
        return self._bank.nbytes + self._columns.nbytes + self._directions.nbytes

    def search(
        self, queries: NDArray[np.float32], k: int, excluded: NDArray[np.intp] | None = None
    ) -> NDArray[np.float32]:
        """See `NeighbourSearch.search`.

        Args:
            queries: float32 [Q, D].
            k: at most the size of the bank without the excluded rows.
            excluded: int [E], rows of the bank to leave out.
        """
        queries = np.ascontiguousarray(queries, np.float32)
        distances = np.empty((len(queries), k), np.float32)

        def search_rows(start: int, stop: int) -> None:
            distances[start:stop] = self._search(queries[start:stop], k, excluded)

        split_rows(search_rows, len(queries), at_most=max(64, _BLOCK // self._columns.shape[1]))
        return distances

    def nearest(self, query: NDArray[np.float32]) -> tuple[int, float]:
        """See `NeighbourSearch.nearest`."""
        queries = np.ascontiguousarray(query[None], np.float32)
        with np.errstate(over="ignore", invalid="ignore"):
            factors = np.ones((1, len(self._columns)), np.float32)
            np.subtract(self._shift, queries @ self._directions, out=factors[:, :-1])
            bounds = (factors @ self._columns)[0, : len(self._bank)]
            limit = self._limit(queries, np.array([[bounds.argmin()]], np.intp), factors[:, :-1])[0]
            found = np.flatnonzero(~(bounds > limit))  # all rows, where a bound or the limit overflowed
        return nearest_of(self._bank, queries[0], found)

    def _search(self, queries: NDArray[np.float32], k: int, excluded: NDArray[np.intp] | None) -> NDArray[np.float32]:
        n, padded = len(queries), self._columns.shape[1]
        if len(self._bank) < _TOO_FEW * k:
            return self._search_whole(queries, k, excluded)
        groups = padded // _GROUP
        with np.errstate(over="ignore", invalid="ignore"):
            # Half the squared bound, without the term that is constant for a query.
            factors = np.ones((n, len(self._columns)), np.float32)
            np.subtract(self._shift, queries @ self._directions, out=factors[:, :-1])
            bounds = factors @ self._columns
            if excluded is not None:
                bounds[:, excluded] = _PADDING
            # A group is a column of this view. Its rows are contiguous, which makes the reduction fast.
            minima = bounds.reshape(n, _GROUP, groups).min(axis=1)
            best = minima.argmin(axis=1)[:, None] if k == 1 else np.argpartition(minima, k - 1, axis=1)[:, :k]
            flat = bounds.reshape(-1)
            members = np.arange(_GROUP) * groups
            first = (np.arange(n)[:, None] * padded + best)[..., None] + members
            near = best + groups * flat[first].argmin(axis=2)
            np.minimum(near, len(self._bank) - 1, out=near)  # a query that overflowed is compared with the whole bank
            limit = self._limit(queries, near, factors[:, :-1])

            whole = ~(limit < _PADDING / 10)
            whole |= np.take_along_axis(minima, best, axis=1).max(axis=1) >= _PADDING / 10  # too few groups are left
            limit[whole] = -np.inf
            row, at = np.divmod(np.flatnonzero(minima <= limit[:, None]), groups)
            inside = flat[(row * padded + at)[:, None] + members] <= limit[row][:, None]
            pair, member = np.divmod(np.flatnonzero(inside), _GROUP)
            rows, columns = row[pair], at[pair] + groups * member
            counts = np.bincount(rows, minlength=n)
            whole |= counts > max(4 * k, len(self._bank) // _TOO_MANY)
            if whole.any():
                keep = ~whole[rows]
                rows, columns, counts = rows[keep], columns[keep], np.where(whole, 0, counts)

            distances = np.empty((n, k), np.float32)
            squared = self._squared(queries, rows, columns)
            done = ~whole
            starts = (np.cumsum(counts) - counts)[done]
            if len(starts):
                if k == 1:
                    smallest = np.minimum.reduceat(squared, starts)[:, None]
                else:
                    smallest = squared[np.lexsort((squared, rows))][starts[:, None] + np.arange(k)]
                distances[done] = np.sqrt(smallest)
        if whole.any():
            distances[whole] = self._search_whole(queries[whole], k, excluded)
        return distances

    def _limit(
        self, queries: NDArray[np.float32], near: NDArray[np.intp], projected: NDArray[np.float32]
    ) -> NDArray[np.float32]:
        """Return the limit that no bound of the k nearest exceeds, float32 [Q], from k rows of the bank per query."""
        n, k = near.shape
        squared = self._squared(queries, np.repeat(np.arange(n), k), near.ravel())
        farthest = np.sqrt(squared.reshape(n, k).max(axis=1).astype(np.float64)) * 1.0001
        norms = np.sqrt(np.einsum("qd,qd->q", queries, queries).astype(np.float64))
        squares = np.einsum("qd,qd->q", projected, projected).astype(np.float64)
        farthest += self._projection_error * (norms + self._norm)
        slack = self._product_error * (np.sqrt(squares) + self._projected_norm) ** 2
        limit: NDArray[np.float32] = ((farthest**2 - squares) / 2 + slack).astype(np.float32)
        return limit

    def _squared(
        self, queries: NDArray[np.float32], rows: NDArray[np.intp], columns: NDArray[np.intp]
    ) -> NDArray[np.float32]:
        """Return the squared distances of pairs of a query and a row of the bank, float32 [P]."""
        squared = np.empty(len(rows), np.float32)
        for start in range(0, len(rows), 256):  # as many as fit the second-level cache
            part = slice(start, start + 256)
            difference = queries[rows[part]]
            difference -= self._bank[columns[part]]
            np.einsum("pd,pd->p", difference, difference, out=squared[part])
        return squared

    def _search_whole(
        self, queries: NDArray[np.float32], k: int, excluded: NDArray[np.intp] | None
    ) -> NDArray[np.float32]:
        """Search in float64 by comparing with the whole bank, where the bound does not help."""
        size, dim = self._bank.shape
        distances = np.empty((len(queries), k), np.float32)
        step = max(1, (_BLOCK // 2) // size)
        for start in range(0, len(queries), step):
            part = queries[start : start + step].astype(np.float64)
            norms = np.einsum("qd,qd->q", part, part)[:, None]
            squared = np.empty((len(part), size))
            for first in range(0, size, 4096):
                block = self._bank[first : first + 4096].astype(np.float64)
                squared[:, first : first + 4096] = np.einsum("md,md->m", block, block) - 2 * (part @ block.T)
            squared += norms
            if excluded is not None:
                squared[:, excluded] = np.inf
            squared.partition(k - 1, axis=1)
            nearest = squared[:, :k]
            nearest[nearest <= 8 * (dim + 4) * 2.0**-53 * norms] = 0  # equal, apart from rounding
            distances[start : start + step] = np.sqrt(np.sort(nearest, axis=1))
        return distances


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
