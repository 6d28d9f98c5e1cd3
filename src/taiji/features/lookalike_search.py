"""Look-alike search in large pools: an index of the rows that were valid at a snapshot, and a scan of the rows added
since then.

A *serving row* is a feature row (a user, a time and a vector) for which the most similar other user is searched. The
*pool* consists of the feature rows among which this user is searched. A pool row is valid from its time until the
user's next pool row *replaces* it.

A snapshot is taken at every ``fresh``-th pool row, and the index changes only at snapshots. Rows that were replaced
since the snapshot are removed from the search result. Thus, the result for a serving row depends only on pool rows at
or before its time.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from taiji.models.retrieval.vector_index import VectorIndex

Array = NDArray[Any]
CANDIDATES = 8
"""Number of rows fetched from the index per serving row. One may belong to the same user, and some may have been
replaced since the snapshot."""
BLOCK = 2048
"""Number of serving rows that are compared with the fresh pool rows at a time."""


def search_snapshots(
    users: Array,
    as_ofs: Array,
    queries: Array,
    pool: tuple[Array, Array, Array, Array],
    *,
    index: VectorIndex,
    fresh: int = 8192,
) -> tuple[Array, Array]:
    """Return the nearest pool row of another user for each serving row.

    Args:
        users, as_ofs: (N,) users and times of the serving rows.
        queries: (N, d) float32 unit vectors of the serving rows.
        pool: users (P,), starts (P,) and ends (P,) of the rows' validity, and unit vectors (P, d) float32. The rows are
            sorted by start.
        index: empty index. Its settings determine which share of its rows is searched.
        fresh: number of pool rows between two snapshots.

    Returns:
        Indices (N,) of the found pool rows, and their cosines (N,) float64, rounded to 6 decimals. If there is no such
        row, the index is −1 and the cosine −inf. Among equal rounded cosines, the user with the smallest id is chosen.
    """
    _, start, end, vectors = pool
    best, cosine = np.full(len(users), -1, dtype=np.int64), np.full(len(users), -np.inf)
    by_time = np.argsort(as_ofs, kind="stable")
    snapshots: Array = np.r_[np.iinfo(np.int64).min, np.unique(start[fresh - 1 :: fresh])]
    bounds: Array = np.searchsorted(as_ofs[by_time], snapshots, side="left")
    held = np.zeros(len(start), dtype=bool)
    for number, (taken, first) in enumerate(zip(snapshots, bounds)):
        last = bounds[number + 1] if number + 1 < len(bounds) else len(by_time)
        if first == last:
            continue
        alive = (start <= taken) & (end > taken)
        index.remove(np.flatnonzero(held & ~alive))
        index.add(np.flatnonzero(alive & ~held), vectors[alive & ~held])
        held = alive
        low = int(np.searchsorted(start, taken, side="right"))
        for at in range(first, last, BLOCK):
            rows = by_time[at : min(at + BLOCK, last)]
            now = as_ofs[rows]
            old, _ = index.search(queries[rows], CANDIDATES)
            recent = np.arange(low, int(np.searchsorted(start, now[-1], side="right")))
            found = np.concatenate([old, _fresh(queries[rows], now, users[rows], pool, recent)], axis=1)
            row, value = _choose(found, queries[rows], now, users[rows], pool)
            best[rows], cosine[rows] = row, value
    return best, cosine


def _fresh(queries: Array, now: Array, users: Array, pool: tuple[Array, Array, Array, Array], recent: Array) -> Array:
    """Return indices (B, ≤ CANDIDATES) of the nearest eligible pool rows that were added since the snapshot; −1 for
    none. A row is eligible if it is valid at the serving row's time and belongs to another user."""
    pool_users, start, end, vectors = pool
    if not len(recent):
        return np.full((len(queries), 0), -1, dtype=np.int64)
    allowed = (start[recent] <= now[:, None]) & (end[recent] > now[:, None]) & (pool_users[recent] != users[:, None])
    scores = np.where(allowed, queries @ vectors[recent].T, -np.inf)
    width = min(CANDIDATES, len(recent))
    places = np.argpartition(-scores, width - 1, axis=1)[:, :width]
    return np.where(np.isfinite(np.take_along_axis(scores, places, axis=1)), recent[places], -1)


def _choose(
    found: Array, queries: Array, now: Array, users: Array, pool: tuple[Array, Array, Array, Array]
) -> tuple[Array, Array]:
    """Return the best eligible candidate (B,) among the pool rows ``found`` (B, C), and its cosine (B,)."""
    pool_users, start, end, vectors = pool
    at = np.maximum(found, 0)
    allowed = (found >= 0) & (start[at] <= now[:, None]) & (end[at] > now[:, None]) & (pool_users[at] != users[:, None])
    scores = np.einsum("bd,bcd->bc", queries.astype(np.float64), vectors[at].astype(np.float64))
    scores = np.where(allowed, np.round(scores, 6), -np.inf)
    chosen = np.lexsort((pool_users[at], -scores), axis=1)[:, 0]
    rows = np.arange(len(found))
    value = scores[rows, chosen]
    return np.where(np.isfinite(value), found[rows, chosen], -1), value
