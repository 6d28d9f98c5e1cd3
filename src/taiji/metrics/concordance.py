"""Concordance ("XAUC"): generalisation of the AUC to labels with any number of values, exact under ties.

It is the probability that the prediction orders two rows with different labels correctly, where a tie counts one half.
Labels are replaced by their ranks. Two different ranks have a highest bit in which they differ, so one AUC per bit,
among the rows that agree in all higher bits, counts every pair exactly once. Ranks of b bits need b sorts, which are
done once, and b cumulative sums for each vector of user weights. Binary labels have one bit, and the value is the AUC.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from taiji.metrics.bootstrap import Statistic, scores_differ

Array = NDArray[Any]


@dataclass(frozen=True)
class _Bit:
    """Pairs of rows whose label ranks have the same highest differing bit.

    Attributes:
        lower, upper: rows without and with the bit; ``lower`` sorted by block and score.
        start, below, level, end: four indices into ``lower`` for each upper row: the start of its block, the end of the
            rows with lower scores, the end of the rows with lower or equal scores, and the end of its block.
    """

    lower: Array
    upper: Array
    start: Array
    below: Array
    level: Array
    end: Array


def _bits(blocks: Array, ranks: Array, scores: Array) -> Iterator[_Bit]:
    """Yield pairs of rows, by bit. Every two rows with the same block and different ranks occur in exactly one bit."""
    for bit in range(int(ranks.max(initial=0)).bit_length()):
        node = _codes(blocks, ranks >> (bit + 1))
        place = _codes(node, np.unique(scores, return_inverse=True)[1])
        order = np.argsort(place, kind="stable")
        has = (ranks[order] >> bit) & 1 > 0
        lower, upper = order[~has], order[has]
        yield _Bit(
            lower,
            upper,
            np.searchsorted(node[lower], node[upper], side="left"),
            np.searchsorted(place[lower], place[upper], side="left"),
            np.searchsorted(place[lower], place[upper], side="right"),
            np.searchsorted(node[lower], node[upper], side="right"),
        )


def _codes(first: Array, second: Array) -> Array:
    """Return a code (N,) from 0 for each pair ``(first[i], second[i])``; codes follow the lexicographic order of the
    pairs."""
    width = int(second.max(initial=0)) + 1
    return np.unique(first.astype(np.int64) * width + second, return_inverse=True)[1]


def grouped_concordance(groups: Array, labels: Array, scores: Array, n_groups: int) -> Array:
    """Return the concordance within every group, (n_groups,); NaN where all labels of a group are equal.

    Args:
        groups: (N,) codes below ``n_groups``.
        labels, scores: (N,) finite numbers.
    """
    right, pairs = np.zeros(n_groups), np.zeros(n_groups)
    for bit in _bits(groups, np.unique(labels, return_inverse=True)[1], scores):
        owner = groups[bit.upper]
        right += np.bincount(owner, weights=(bit.below + bit.level) / 2 - bit.start, minlength=n_groups)
        pairs += np.bincount(owner, weights=bit.end - bit.start, minlength=n_groups)
    with np.errstate(invalid="ignore"):
        return right / np.where(pairs > 0, pairs, np.nan)


class PooledConcordance:
    """Concordance over all rows together, each row weighted by its user's weight.

    Args:
        users: (N,) user codes below ``n_users``.
        labels, scores: (N,) finite numbers.
    """

    units_text = "users with the rarer labels"

    def __init__(self, users: Array, labels: Array, scores: Array, n_users: int) -> None:
        self.scored = users, scores
        self._ranks = np.unique(labels, return_inverse=True)[1]
        self._users, self._n_users = users.astype(np.intp), n_users
        self._bits = list(_bits(np.zeros(len(users), dtype=np.int64), self._ranks, scores))

    @property
    def n_users(self) -> int:
        """Length of a weight vector."""
        return self._n_users

    @property
    def n(self) -> int:
        """Number of users with a row."""
        return len(np.unique(self._users))

    @property
    def units(self) -> int:
        """Largest number of users on the rarer side of a cut between two label values, over all cuts."""
        cuts = np.arange(int(self._ranks.max(initial=0)))  # a row is above a cut, or at or below it
        highest, lowest = np.full(self._n_users, -1), np.full(self._n_users, len(cuts) + 1)
        np.maximum.at(highest, self._users, self._ranks)
        np.minimum.at(lowest, self._users, self._ranks)
        above = self._n_users - np.searchsorted(np.sort(highest), cuts, side="right")
        below = np.searchsorted(np.sort(lowest), cuts, side="right")
        return int(np.minimum(above, below).max(initial=0))

    def differing(self, other: Statistic) -> int:
        """Return the number of users with a row whose two scores differ; 0 if both scores put all rows in the same
        order."""
        return (
            scores_differ(self.scored, other.scored) if isinstance(other, PooledConcordance) else min(self.n, other.n)
        )

    def __call__(self, weights: Array) -> Array:
        """Return the values (R,) under the weights (R, n_users); NaN without two different labels."""
        return np.array([self._value(weight) for weight in weights])

    def _value(self, weight: Array) -> float:
        rows = weight[self._users]
        mass = np.bincount(self._ranks, weights=rows)
        pairs = mass @ (np.cumsum(mass) - mass)
        if pairs == 0:
            return float("nan")
        right = 0.0
        for bit in self._bits:
            running = np.zeros(len(bit.lower) + 1)
            np.cumsum(rows[bit.lower], out=running[1:])
            right += float(rows[bit.upper] @ (running[bit.below] + running[bit.level] - 2 * running[bit.start]))
        return right / float(2 * pairs)
