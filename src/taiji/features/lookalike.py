"""Search for the most similar *other* user at a given time."""

from __future__ import annotations

import numpy as np

EXACT_BELOW = 50_000
"""Largest number of rows in the pool for which the search is exact."""
PROBES = 0.02
"""Share of the index that is searched in larger pools. ``benchmarks/lookalike.py`` measures the recall."""
FOREVER = np.iinfo(np.int64).max
DECIMALS = 9
"""Number of decimals to which cosines are rounded before they are compared. Identical answers give ties, which must not
be broken by the rounding errors of a matrix product."""


def nearest_users(
    users: np.ndarray,
    as_ofs: np.ndarray,
    vectors: np.ndarray,
    pool: tuple[np.ndarray, np.ndarray, np.ndarray] | None = None,
    *,
    block: int = 1024,
    exact_below: int = EXACT_BELOW,
    probes: float = PROBES,
) -> tuple[np.ndarray, np.ndarray]:
    """Return the nearest other user of each row by cosine.

    A serving row is a row for which a neighbour is searched. The pool consists of the rows among which neighbours are
    searched. The candidates of a serving row are one pool row of each other user: the user's newest row at or before
    the ``as_of`` of the serving row. Older rows of that user, later rows, and rows of the serving row's own user are
    not used. Ties go to the user with the smaller id. A vector of zeros has no direction, so such a row neither finds a
    neighbour nor is found.

    Args:
        users, as_ofs: (N,) dense user ids of the serving rows, and their times in microseconds.
        vectors: (N, d) embeddings of the serving rows.
        pool: users, times and embeddings of the pool rows; by default those of the serving rows.
        block: number of serving rows processed at a time. The memory needed is about ``block * rows of the pool * 20``
            bytes.
        exact_below: largest number of pool rows for which the search is exact. A larger pool is searched with an index,
            which may miss the nearest row. The result still depends on nothing after the time of the serving row.
        probes: share of the index that is searched in a larger pool; a larger share misses fewer rows and takes longer.

    Returns:
        Dense ids (N,) int64 of the neighbours and cosines (N,) float32. Without a neighbour, the id is -1 and the
        cosine 0.
    """
    users, as_ofs = np.asarray(users, dtype=np.int64), np.asarray(as_ofs, dtype=np.int64)
    pool_users, pool_start, pool_vectors = (users, as_ofs, vectors) if pool is None else pool
    pool_users, pool_start = np.asarray(pool_users, dtype=np.int64), np.asarray(pool_start, dtype=np.int64)
    pool_end = _replaced_at(pool_users, pool_start)
    if len(pool_users) > exact_below:
        return _indexed(users, as_ofs, vectors, (pool_users, pool_start, pool_end, pool_vectors), exact_below, probes)
    queries, directed = _unit(vectors)
    keys, known = _unit(pool_vectors) if pool is not None else (queries, directed)
    usable = known & (pool_end > pool_start)
    order = np.flatnonzero(usable)[np.lexsort((pool_start[usable], pool_users[usable]))]
    pool_users, pool_start, pool_end, keys = pool_users[order], pool_start[order], pool_end[order], keys[order]

    neighbours = np.full(len(users), -1, dtype=np.int64)
    cosines = np.zeros(len(users), dtype=np.float32)
    if not len(order):
        return neighbours, cosines
    by_time = np.argsort(as_ofs, kind="stable")
    for start in range(0, len(users), block):
        rows = by_time[start : start + block]
        now = as_ofs[rows]
        alive = np.flatnonzero((pool_start <= now[-1]) & (pool_end > now[0]))
        if not len(alive):
            continue
        similarity = np.round(queries[rows] @ keys[alive].T, DECIMALS)
        allowed = (
            (pool_start[alive] <= now[:, None])
            & (pool_end[alive] > now[:, None])
            & (pool_users[alive] != users[rows][:, None])
        )
        similarity = np.where(allowed, similarity, -np.inf)
        best = np.argmax(similarity, axis=1)
        value = similarity[np.arange(len(rows)), best]
        found = np.isfinite(value) & directed[rows]
        neighbours[rows[found]] = pool_users[alive][best[found]]
        cosines[rows[found]] = value[found]
    return neighbours, cosines


def _indexed(
    users: np.ndarray,
    as_ofs: np.ndarray,
    vectors: np.ndarray,
    pool: tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray],
    exact_below: int,
    probes: float,
) -> tuple[np.ndarray, np.ndarray]:
    """Return the result of :func:`nearest_users`, computed with an index. Vectors are float32, so that a million rows
    fit in memory."""
    from taiji.features.lookalike_search import search_snapshots
    from taiji.models.retrieval.vector_index import VectorIndex

    pool_users, start, end, pool_vectors = pool
    queries, directed = _unit(vectors, np.float32)
    keys, known = (queries, directed) if pool_vectors is vectors else _unit(pool_vectors, np.float32)
    usable = np.flatnonzero(known & (end > start))
    order = usable[np.lexsort((pool_users[usable], start[usable]))]
    rows = pool_users[order], start[order], end[order], keys[order]
    index = VectorIndex(keys.shape[1], exact_below=exact_below, probes=probes)
    found, value = search_snapshots(users, as_ofs, queries, rows, index=index)
    found[~directed] = -1
    there = found >= 0
    neighbours = np.where(there, rows[0][np.maximum(found, 0)], -1)
    return neighbours, np.where(there, value, 0.0).astype(np.float32)


def _unit(vectors: np.ndarray, kind: type[np.floating] = np.float64) -> tuple[np.ndarray, np.ndarray]:
    vectors = np.asarray(vectors, dtype=kind)
    norm = np.linalg.norm(vectors, axis=1, keepdims=True)
    return vectors / np.where(norm > 0, norm, 1), norm[:, 0] > 0


def _replaced_at(users: np.ndarray, start: np.ndarray) -> np.ndarray:
    """Return the time (P,) int64 at which each row is replaced by a newer row of the same user.

    If several rows of a user have equal times, the last one replaces the others. The time is :data:`FOREVER` for a row
    that is never replaced.
    """
    order = np.lexsort((np.arange(len(users)), start, users))
    end = np.full(len(users), FOREVER, dtype=np.int64)
    same = users[order][1:] == users[order][:-1]
    end[order[:-1][same]] = start[order[1:][same]]
    return end
