"""The coreset of a memory bank, chosen by the k-center greedy algorithm."""

import logging
import time
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from gateway.detectors.memory_bank.threads import split_rows
from gateway.detectors.memory_bank.token_file import TokenRows

log = logging.getLogger(__name__)

_SAME = 1e-6
"""Two tokens at a smaller squared distance count as equal."""
_ROUNDING = 2.0**-24
_POOL = (1024, 32)
"""Tokens compared with the centres at a time: at least the first number, and one in the second number of all."""
_KEPT = 1 << 14
"""Contenders held in float64 at once: 100 MB for 768 dimensions."""
_BLOCK = 1 << 20
"""Distances that one thread holds at once."""
_LOG_EVERY_S = 5.0


@dataclass(frozen=True, slots=True)
class Coreset:
    """The chosen tokens."""

    indices: NDArray[np.int64]
    """[M], in the order of choice."""
    covering_radius: float
    """Distance of the farthest token to its nearest centre, 0–2."""


def coreset_size(n_tokens: int, rate: float) -> int:
    """Return the number of centres for a rate: the nearest whole number, at least one.

    >>> coreset_size(100, 0.02)
    2
    """
    return min(n_tokens, max(1, round(n_tokens * rate)))


def k_center_greedy(
    tokens: TokenRows, n_centres: int, seed: int, on_progress: Callable[[int, int], None] | None = None
) -> Coreset:
    """Choose centres greedily: each is the token farthest from the centres before it.

    The choice is exact, as in Sener and Savarese, "Active Learning for Convolutional Neural Networks: A Core-Set
    Approach" (2018), which PatchCore uses; there is no random projection. The seed draws the first centre, which is
    part of the coreset. Of equally far tokens, the one with the lowest index is chosen. If fewer than `n_centres`
    tokens differ, the coreset has that many centres.

    The distances that decide are float64, which is exact for half-precision tokens of unit norm: the centres do not
    depend on the rounding of a matrix product. Memory besides the tokens, which are read in blocks: 40 bytes per
    token, 8·D bytes per centre, blocks of 20 MB per thread, and 200 MB more where very many tokens are equally far.

    Args:
        tokens: float16 or float32 [N, D], near unit norm: an array, or rows of a file.
        n_centres: at most N.
        seed: seed that draws the first centre.
        on_progress: is called with the number of centres so far and with `n_centres`.

    Returns:
        Indices int64 [M], M ≤ n_centres, and the covering radius (Euclidean).
    """
    greedy = _LazyGreedy(tokens, n_centres)
    n = tokens.shape[0]
    greedy.add(int(np.random.default_rng(seed).integers(n)))
    greedy.compare(np.arange(n))
    said = time.monotonic()
    pool = least = max(_POOL[0], n // _POOL[1])
    while not greedy.covered:
        pool = least if greedy.advance(pool) else 2 * pool
        if on_progress is not None:
            on_progress(greedy.n, n_centres)
        if time.monotonic() - said > _LOG_EVERY_S:
            said = time.monotonic()
            log.info("coreset: %d of %d centres", greedy.n, n_centres)
    return Coreset(greedy.indices[: greedy.n], float(np.sqrt(greedy.farthest)))


class _LazyGreedy:
    """Distances to the nearest centre, updated only where they can decide.

    Distances shrink as centres are added. A distance to the first few centres is therefore an upper bound. The tokens
    with the largest bounds (the pool) are compared with all centres by a matrix product. Those that then exceed every
    bound outside the pool are the contenders, and the farthest contender is the farthest token of all. Contenders are
    measured in float64, and centres are chosen among them until no contender exceeds the bounds outside.
    """

    def __init__(self, tokens: TokenRows, n_centres: int) -> None:
        n, dim = tokens.shape
        self._tokens = tokens
        self._wanted = n_centres
        # A product rounds in proportion to the norms, and norms are smallest about the mean.
        self._mean = np.asarray(tokens[np.arange(0, n, max(1, n // 4096))], np.float32).mean(axis=0)
        self._error = 0.0
        self._squared = np.full(n, np.inf, np.float32)
        """[N], squared distance to the nearest centre seen, within `_error`."""
        self._nearest = np.zeros(n, np.int32)
        self._sure = np.ones(n, np.bool_)
        """[N], whether `_nearest` is certain: no other centre seen comes within the error."""
        self._seen = np.zeros(n, np.int32)
        self._centres = np.empty((n_centres, dim), np.float32)
        self._centred = np.empty((n_centres, dim), np.float32)
        self._centred_squares = np.empty(n_centres, np.float32)
        self.indices = np.empty(n_centres, np.int64)
        self.n = 0
        self.covered = False
        self.farthest = np.inf
        """Squared distance of the farthest token; valid once `covered`."""

    def add(self, index: int) -> None:
        """Make a token a centre."""
        n = self.n
        self.indices[n] = index
        self._centres[n] = self._tokens[np.array([index])][0]
        self._centred[n] = self._centres[n] - self._mean
        self._centred_squares[n] = self._centred[n] @ self._centred[n]
        self.n += 1

    def compare(self, rows: NDArray[np.intp]) -> None:
        """Compare tokens with the centres that they have not been compared with."""
        rows = rows[np.argsort(self._seen[rows], kind="stable")]
        unseen = self.n - int(self._seen[rows].min())
        reach = []

        def compare_rows(start: int, stop: int) -> None:
            reach.append(self._compare(rows[start:stop]))

        split_rows(compare_rows, len(rows), at_most=max(16, min(2048, _BLOCK // unseen)))
        if not self._error:  # the first time, of all tokens
            dim = self._tokens.shape[1]
            self._error = 4 * (dim + 8) * _ROUNDING * max(reach)

    def _compare(self, rows: NDArray[np.intp]) -> float:
        """Do the same for a block of rows and return the largest squared norm."""
        first = int(self._seen[rows].min())
        tokens = self._tokens[rows].astype(np.float32)
        tokens -= self._mean
        squares = np.einsum("rd,rd->r", tokens, tokens)
        squared = tokens @ self._centred[first : self.n].T
        squared *= -2
        squared += self._centred_squares[first : self.n]
        squared += squares[:, None]
        nearest = squared.argmin(axis=1)
        new, old = squared[np.arange(len(rows)), nearest], self._squared[rows]
        margin = 2 * self._error
        alone = np.count_nonzero(squared <= (new + margin)[:, None], axis=1) == 1
        nearer, farther = new < old - margin, new > old + margin
        self._sure[rows] = np.where(nearer, alone, farther & self._sure[rows])
        self._nearest[rows] = np.where(new < old, nearest + first, self._nearest[rows])
        self._squared[rows] = np.minimum(new, old)
        self._seen[rows] = self.n
        return float(squares.max())

    def advance(self, pool: int) -> bool:
        """Choose as many centres as the `pool` tokens with the largest bounds allow.

        Returns:
            Whether there was progress. If not, too many tokens are equally far, and the pool must be larger.
        """
        n = self._tokens.shape[0]
        if pool < n:
            order = np.argpartition(self._squared, n - pool - 1)
            rows = order[n - pool :]
            outside = float(self._squared[order[n - pool - 1]])
        else:
            rows, outside = np.arange(n), -np.inf
        stale = rows[self._seen[rows] < self.n]
        if len(stale):
            self.compare(stale)
        contenders = np.sort(rows[self._squared[rows] > outside])
        chosen = len(contenders) > 0 and self._choose(contenders, outside + self._error)
        return chosen or len(stale) > 0

    def _choose(self, rows: NDArray[np.intp], outside: float) -> bool:
        """Choose centres among contenders, `rows` ascending, while the farthest exceeds the bound `outside`."""
        squared = np.empty(len(rows))
        for start in range(0, len(rows), _KEPT):
            squared[start : start + _KEPT] = self._measure(rows[start : start + _KEPT])
        nearest = self._nearest[rows]
        held = None
        if len(rows) <= _KEPT:
            held = self._tokens[rows].astype(np.float64)
            squares = np.einsum("rd,rd->r", held, held)
        before = self.n
        while True:
            farthest = int(squared.argmax())
            if squared[farthest] <= outside:
                break
            if self.n == self._wanted or squared[farthest] <= _SAME:
                self.covered, self.farthest = True, float(squared[farthest])
                return True
            self.add(int(rows[farthest]))
            if held is None:
                return True
            new = squares + squares[farthest] - 2 * (held @ held[farthest])
            new[farthest] = 0
            nearest = np.where(new < squared, self.n - 1, nearest)
            np.minimum(squared, new, out=squared)
        self._squared[rows] = squared
        self._nearest[rows] = nearest
        self._sure[rows] = True
        self._seen[rows] = self.n
        return self.n > before

    def _measure(self, rows: NDArray[np.intp]) -> NDArray[np.float64]:
        """Return squared distances to the nearest centre in float64; every centre must have been compared."""
        tokens = self._tokens[rows].astype(np.float64)
        difference = tokens - self._centres[self._nearest[rows]]
        squared: NDArray[np.float64] = np.einsum("rd,rd->r", difference, difference)
        unsure = np.flatnonzero(~self._sure[rows])
        step = max(1, _BLOCK // self.n)
        for start in range(0, len(unsure), step):
            part = unsure[start : start + step]
            some = tokens[part]
            to_all = np.einsum("rd,rd->r", some, some)[:, None] - 2 * (some @ self._centres[: self.n].T)
            to_all += np.einsum("nd,nd->n", self._centres[: self.n], self._centres[: self.n], dtype=np.float64)
            squared[part] = to_all.min(axis=1)
            self._nearest[rows[part]] = to_all.argmin(axis=1)
        return squared
