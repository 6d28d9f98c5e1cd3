"""The most similar *other* user, as known at a time."""

from __future__ import annotations

import numpy as np

FOREVER = np.iinfo(np.int64).max
DECIMALS = 9
"""Cosines are compared to this many decimals: answers repeat word for word, and which of two equal ones wins must not
depend on how a matrix product happened to round."""


def nearest_users(
    users: np.ndarray,
    as_ofs: np.ndarray,
    vectors: np.ndarray,
    pool: tuple[np.ndarray, np.ndarray, np.ndarray] | None = None,
    *,
    block: int = 1024,
) -> tuple[np.ndarray, np.ndarray]:
    """Exact nearest other user by cosine.

    Of each other user, only its newest row with ``as_of`` at or before the serving row's counts: never the future, never
    oneself, and no opinion that the pool itself has replaced. Ties go to the smaller user id. A zero vector has no direction:
    it finds nobody and is found by nobody.

    Args:
        users, as_ofs: (N,) serving rows: dense user ids and microseconds.
        vectors: (N, d) their embeddings.
        pool: (users, as_ofs, vectors) to search among; by default the serving rows themselves.
        block: serving rows compared at a time; memory is about ``block * rows of the pool * 20`` bytes.

    Returns:
        (N,) int64 dense ids of the neighbours, -1 where there is none, and (N,) float32 cosines (0 where none).
    """
    users, as_ofs = np.asarray(users, dtype=np.int64), np.asarray(as_ofs, dtype=np.int64)
    queries, directed = _unit(vectors)
    pool_users, pool_start, pool_vectors = (users, as_ofs, vectors) if pool is None else pool
    pool_users, pool_start = np.asarray(pool_users, dtype=np.int64), np.asarray(pool_start, dtype=np.int64)
    keys, known = _unit(pool_vectors)
    pool_end = _replaced_at(pool_users, pool_start)
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


def _unit(vectors: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    vectors = np.asarray(vectors, dtype=np.float64)
    norm = np.linalg.norm(vectors, axis=1, keepdims=True)
    return vectors / np.where(norm > 0, norm, 1), norm[:, 0] > 0


def _replaced_at(users: np.ndarray, start: np.ndarray) -> np.ndarray:
    """Times (P,) int64 at which a newer row of the same user takes over; of equal times the later row stands."""
    order = np.lexsort((np.arange(len(users)), start, users))
    end = np.full(len(users), FOREVER, dtype=np.int64)
    same = users[order][1:] == users[order][:-1]
    end[order[:-1][same]] = start[order[1:][same]]
    return end
