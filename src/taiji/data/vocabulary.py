"""Open vocabularies: each id that is frequent enough in training has its own row, and all other ids share hashed rows.

Rows are found by a 64-bit hash of the id in the source, not by the dense id in a dataset, so that a saved ranker finds
the same rows after the tables have grown. The hash is BLAKE2b, which is stable across runs, machines and versions.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable

import numpy as np


def stable_hash(values: Iterable[object]) -> np.ndarray:
    """Hash the string form of each value, (N,) int64."""
    digests = b"".join(hashlib.blake2b(str(value).encode(), digest_size=8).digest() for value in values)
    return np.frombuffer(digests, dtype="<i8").astype(np.int64)


class Vocabulary:
    """Vocabulary with row ``0`` for a missing value (None), rows ``1 … hashed`` for hashed ids, and then one row per
    known id.

    Args:
        known: hashes of the known ids, (V,) int64, in any order.
        hashed: number of shared rows.
    """

    def __init__(self, known: np.ndarray, hashed: int) -> None:
        self.known = np.unique(np.asarray(known, dtype=np.int64))
        self.hashed = int(hashed)

    @classmethod
    def fit(cls, hashes: np.ndarray, counts: np.ndarray, min_count: int, max_rows: int, hashed: int) -> Vocabulary:
        """Return a vocabulary of the ids that occur at least ``min_count`` times.

        It has at most ``max_rows`` known ids: the most frequent ones (ties are ordered by hash).
        """
        order = np.lexsort((hashes, -counts))[:max_rows]
        return cls(hashes[order][counts[order] >= min_count], hashed)

    def __len__(self) -> int:
        return 1 + self.hashed + len(self.known)

    def rows(self, values: Iterable[object]) -> np.ndarray:
        """Return the rows of values, (N,) int64 in ``[0, len(self))``. None has row 0."""
        values = list(values)
        rows = self.rows_of(stable_hash(values))
        rows[[value is None for value in values]] = 0
        return rows

    def rows_of(self, hashes: np.ndarray) -> np.ndarray:
        """Return the rows of hashes, (N,) int64."""
        shared = 1 + (hashes.view(np.uint64) % np.uint64(self.hashed)).astype(np.int64)
        if not len(self.known):
            return shared
        at = np.minimum(np.searchsorted(self.known, hashes), len(self.known) - 1)
        return np.where(self.known[at] == hashes, 1 + self.hashed + at, shared)
