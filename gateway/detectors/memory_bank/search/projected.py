"""Exact nearest neighbours by a lower bound from a short matrix product."""

import numpy as np
from numpy.typing import NDArray

from gateway.detectors.memory_bank.search.measured import nearest_of
from gateway.detectors.memory_bank.search.projection import GROUP, PADDING, Projection
from gateway.detectors.memory_bank.threads import split_rows
from gateway.store.arrays import as_float32

_ROUNDING = 2.0**-24
_TOO_MANY = 16
"""A query with more than 1/16 of the bank as candidates is faster to compare with the whole bank."""
_TOO_FEW = 64
"""So is every query of a bank with fewer tokens per neighbour than this."""
_PAIRS = 128
"""Pairs that are measured at once: as many as the second-level cache holds."""
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

    def __init__(self, bank: NDArray[np.floating], projection: Projection | None = None) -> None:
        """Prepare a bank.

        Args:
            bank: float16 or float32 [M, D], M ≥ 1. It is kept as it is.
            projection: the stored projection of this bank; None computes it.
        """
        self._bank = bank
        self._projection = Projection.of(bank) if projection is None else projection
        n, dim = self._projection.directions.shape[1], bank.shape[1]
        self._projected_norm = float(np.sqrt(2 * self._projection.columns[-1, : len(bank)].max()))
        self._projection_error = 1.01 * np.sqrt(n) * (dim + 2) * _ROUNDING
        self._product_error = 1.01 * 4 * (n + 4) * _ROUNDING

    @property
    def n_bytes(self) -> int:
        """See `NeighbourSearch.n_bytes`."""
        return self._projection.n_bytes

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

        split_rows(search_rows, len(queries), at_most=max(64, _BLOCK // self._projection.columns.shape[1]))
        return distances

    def nearest(self, query: NDArray[np.float32]) -> tuple[int, float]:
        """See `NeighbourSearch.nearest`."""
        queries = np.ascontiguousarray(query[None], np.float32)
        with np.errstate(over="ignore", invalid="ignore"):
            factors = np.ones((1, len(self._projection.columns)), np.float32)
            np.subtract(self._projection.shift, queries @ self._projection.directions, out=factors[:, :-1])
            bounds = (factors @ self._projection.columns)[0, : len(self._bank)]
            limit = self._limit(queries, np.array([[bounds.argmin()]], np.intp), factors[:, :-1])[0]
            found = np.flatnonzero(~(bounds > limit))  # all rows, where a bound or the limit overflowed
        return nearest_of(self._bank, queries[0], found)

    def _search(self, queries: NDArray[np.float32], k: int, excluded: NDArray[np.intp] | None) -> NDArray[np.float32]:
        n, padded = len(queries), self._projection.columns.shape[1]
        if len(self._bank) < _TOO_FEW * k:
            return self._search_whole(queries, k, excluded)
        groups = padded // GROUP
        with np.errstate(over="ignore", invalid="ignore"):
            # Half the squared bound, without the term that is constant for a query.
            factors = np.ones((n, len(self._projection.columns)), np.float32)
            np.subtract(self._projection.shift, queries @ self._projection.directions, out=factors[:, :-1])
            bounds = factors @ self._projection.columns
            if excluded is not None:
                bounds[:, excluded] = PADDING
            # A group is a column of this view. Its rows are contiguous, which makes the reduction fast.
            minima = bounds.reshape(n, GROUP, groups).min(axis=1)
            best = minima.argmin(axis=1)[:, None] if k == 1 else np.argpartition(minima, k - 1, axis=1)[:, :k]
            flat = bounds.reshape(-1)
            members = np.arange(GROUP) * groups
            first = (np.arange(n)[:, None] * padded + best)[..., None] + members
            near = best + groups * flat[first].argmin(axis=2)
            np.minimum(near, len(self._bank) - 1, out=near)  # a query that overflowed is compared with the whole bank
            limit = self._limit(queries, near, factors[:, :-1])

            whole = ~(limit < PADDING / 10)
            whole |= np.take_along_axis(minima, best, axis=1).max(axis=1) >= PADDING / 10  # too few groups are left
            limit[whole] = -np.inf
            row, at = np.divmod(np.flatnonzero(minima <= limit[:, None]), groups)
            inside = flat[(row * padded + at)[:, None] + members] <= limit[row][:, None]
            pair, member = np.divmod(np.flatnonzero(inside), GROUP)
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
        farthest += self._projection_error * (norms + self._projection.norm)
        slack = self._product_error * (np.sqrt(squares) + self._projected_norm) ** 2
        limit: NDArray[np.float32] = ((farthest**2 - squares) / 2 + slack).astype(np.float32)
        return limit

    def _squared(
        self, queries: NDArray[np.float32], rows: NDArray[np.intp], columns: NDArray[np.intp]
    ) -> NDArray[np.float32]:
        """Return the squared distances of pairs of a query and a row of the bank, float32 [P]."""
        squared = np.empty(len(rows), np.float32)
        for start in range(0, len(rows), _PAIRS):
            part = slice(start, start + _PAIRS)
            difference = as_float32(self._bank[columns[part]])
            difference -= queries[rows[part]]
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
