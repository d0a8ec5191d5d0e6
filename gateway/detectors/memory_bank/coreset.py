"""k-center greedy: the coreset whose farthest token is as near as a greedy choice can make it."""

import logging
import time
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from gateway.detectors.memory_bank.threads import split_rows

log = logging.getLogger(__name__)

_SAME = 1e-6
"""Squared distance under which two tokens are one."""
_ROUNDING = 2.0**-24
_POOL = (1024, 32)
"""Tokens compared with the centres at a time: at least so many, and one of so many."""
_KEPT = 1 << 14
"""Contenders held in float64 at once: 100 MB of 768 dimensions."""
_BLOCK = 1 << 20
"""Distances held at once by one thread."""
_LOG_EVERY_S = 5.0


@dataclass(frozen=True, slots=True)
class Coreset:
    """Which tokens were chosen, in the order of choice, and how far the farthest token is from them (0–2)."""

    indices: NDArray[np.int64]
    covering_radius: float


def coreset_size(n_tokens: int, rate: float) -> int:
    """Centres for a rate: the nearest whole number, and at least one."""
    return min(n_tokens, max(1, round(n_tokens * rate)))


def k_center_greedy(tokens: NDArray[np.floating], n_centres: int, seed: int) -> Coreset:
    """Choose centres greedily, each the token farthest from those before it.

    Exact, as in Sener and Savarese, "Active Learning for Convolutional Neural Networks: A Core-Set Approach" (2018),
    which PatchCore uses; no random projection. The first centre is drawn by the seed and belongs to the coreset. Ties
    go to the lowest index. Where fewer than `n_centres` tokens differ, there are no more centres than that.

    Distances that decide are float64, which is exact for half-precision tokens of unit norm: the centres do not depend
    on how a matrix product rounds. Besides the tokens, which may be a memory map, it takes 40 bytes a token, 8·D bytes
    a centre, and blocks of 20 MB a thread; 200 MB more where very many tokens are equally far.

    Args:
        tokens: float16 or float32 [N, D], near unit norm.
        n_centres: at most N.
        seed: of the first centre.

    Returns:
        Indices int64 [M], M ≤ n_centres, and the covering radius (Euclidean).
    """
    greedy = _LazyGreedy(tokens, n_centres)
    greedy.add(int(np.random.default_rng(seed).integers(len(tokens))))
    greedy.compare(np.arange(len(tokens)))
    said = time.monotonic()
    pool = least = max(_POOL[0], len(tokens) // _POOL[1])
    while not greedy.covered:
        pool = least if greedy.advance(pool) else 2 * pool
        if time.monotonic() - said > _LOG_EVERY_S:
            said = time.monotonic()
            log.info("coreset: %d of %d centres", greedy.n, n_centres)
    return Coreset(greedy.indices[: greedy.n], float(np.sqrt(greedy.farthest)))


class _LazyGreedy:
    """Distances to the nearest centre, brought up to date only where they could decide.

    Distances only shrink as centres are added, so one that was compared with the first few centres only is an upper
    bound. The tokens of the largest bounds are compared with all centres by a matrix product; those that still exceed
    every bound outside are the contenders, and the farthest of them is the farthest of all. They are measured in
    float64 and chosen from until none exceeds the bounds outside.
    """

    def __init__(self, tokens: NDArray[np.floating], n_centres: int) -> None:
        n, dim = tokens.shape
        self._tokens = tokens
        self._wanted = n_centres
        # Products round in proportion to the norms, and those are smallest about the mean.
        self._mean = np.asarray(tokens[:: max(1, n // 4096)], np.float32).mean(axis=0)
        self._error = 0.0
        self._squared = np.full(n, np.inf, np.float32)
        """To the nearest of the centres seen, within `_error`."""
        self._nearest = np.zeros(n, np.int32)
        self._sure = np.ones(n, np.bool_)
        """Whether `_nearest` is it: no other of the centres seen comes within the error."""
        self._seen = np.zeros(n, np.int32)
        self._centres = np.empty((n_centres, dim), np.float32)
        self._centred = np.empty((n_centres, dim), np.float32)
        self._centred_squares = np.empty(n_centres, np.float32)
        self.indices = np.empty(n_centres, np.int64)
        self.n = 0
        self.covered = False
        self.farthest = np.inf
        """Squared distance of the farthest token, once `covered`."""

    def add(self, index: int) -> None:
        """Make a token a centre."""
        n = self.n
        self.indices[n] = index
        self._centres[n] = self._tokens[index]
        self._centred[n] = self._centres[n] - self._mean
        self._centred_squares[n] = self._centred[n] @ self._centred[n]
        self.n += 1

    def compare(self, rows: NDArray[np.intp]) -> None:
        """Compare tokens with the centres that they have not seen."""
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
        """The same for a block; returns the largest squared norm."""
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
        """Choose what can be chosen by looking at the `pool` tokens of the largest bounds.

        Returns:
            Whether it came any further; if not, too many tokens are equally far, and the pool must be larger.
        """
        n = len(self._tokens)
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
        """Choose among contenders, ascending, as long as the farthest exceeds what may be outside."""
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
        """Squared distances to the nearest centre in float64, of tokens that have seen every centre."""
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
