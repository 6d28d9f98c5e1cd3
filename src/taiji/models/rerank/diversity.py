"""Baselines for re-ranking: maximal marginal relevance, determinantal point processes, and caps per category."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from taiji.core.component import Requests, Slate
from taiji.core.errors import ConfigError

Array = NDArray[Any]


class MMR:
    """Re-ranker that repeatedly adds the item with the highest ``λ · score − (1 − λ) · largest cosine to the items
    already in the list`` (Carbonell & Goldstein, SIGIR 1998).

    Args:
        vectors: (N, d) vectors of all items.
        relevance: λ in [0, 1]; 1 keeps the order of the scores.
    """

    def __init__(self, vectors: Array, relevance: float = 0.7) -> None:
        if not 0 <= relevance <= 1:
            raise ConfigError("λ lies outside [0, 1].", where="relevance", found=str(relevance))
        self.vectors, self.relevance = _unit(vectors), relevance

    def rerank(self, requests: Requests, slate: Slate, length: int) -> Slate:
        """Return the re-ranked list of each request, at most ``length`` items of its slate."""
        cosines = _cosines(self.vectors, slate)
        scores = _scores(slate)
        closest = np.full(scores.shape, -np.inf)
        free = slate.mask.copy()

        def gain() -> Array:
            near = np.where(np.isfinite(closest), closest, 0.0)
            return self.relevance * scores - (1 - self.relevance) * near

        places = np.empty((len(scores), min(length, scores.shape[1])), np.int64)
        for step in range(places.shape[1]):
            places[:, step] = _take(gain(), free)
            np.maximum(closest, cosines[np.arange(len(scores)), places[:, step]], out=closest)
        return _listed(slate, places)


class DPP:
    """Re-ranker by greedy maximum a posteriori inference in a determinantal point process (Chen, Zhang & Zhou, NeurIPS
    2018).

    The kernel is ``q_i q_j S_ij`` with ``q = exp(strength · score)``, where S is the Gram matrix of the items' unit
    vectors. Each step adds the item with which the kernel of the list has the largest determinant. An incremental
    Cholesky factor makes this O(M · length²) per request with M candidates. Once every further item would make the
    determinant 0, because the vectors of the list span the space, items are added in order of their scores.

    Args:
        vectors: (N, d) vectors of all items.
        strength: weight of the scores against diversity.
    """

    def __init__(self, vectors: Array, strength: float = 1.0) -> None:
        if not strength > 0:
            raise ConfigError("The weight of the scores must be above 0.", where="strength", found=str(strength))
        self.vectors, self.strength = _unit(vectors), strength

    def rerank(self, requests: Requests, slate: Slate, length: int) -> Slate:
        """Return the re-ranked list of each request, at most ``length`` items of its slate."""
        return _listed(
            slate, greedy_dpp(_cosines(self.vectors, slate), self.strength * _scores(slate), slate.mask, length)
        )


class Caps:
    """Re-ranker that keeps the order of the slate but limits how many items of a list have the same value in a column.

    A list that would be too short is filled with the items that were over the limit, in the order of the slate.

    Args:
        values: by column name, an integer value per item (N,). Items with a negative value are not limited.
        most: by column name, the largest number of items with the same value.
    """

    def __init__(self, values: Mapping[str, Array], most: Mapping[str, int]) -> None:
        if set(values) != set(most) or any(cap < 1 for cap in most.values()):
            raise ConfigError(
                "Each column needs a cap of at least 1, and each cap a column.",
                where="most",
                expected=", ".join(values),
                found=str(dict(most)),
            )
        self.values, self.most = dict(values), dict(most)

    def rerank(self, requests: Requests, slate: Slate, length: int) -> Slate:
        """Return the re-ranked list of each request, at most ``length`` items of its slate."""
        order = np.argsort(~slate.mask, axis=1, kind="stable")
        rows = np.arange(len(order))
        items = np.where(slate.mask, slate.items, 0)
        kinds = {name: np.asarray(column)[items] for name, column in self.values.items()}
        kept = np.zeros(order.shape, dtype=bool)
        for step in range(order.shape[1]):
            place = order[:, step]
            fine = slate.mask[rows, place]
            for name, kind in kinds.items():
                same = kept & (kind == kind[rows, place][:, None])
                fine &= (kind[rows, place] < 0) | (same.sum(axis=1) < self.most[name])
            kept[rows, place] = fine
        first = np.where(kept, 0, np.where(slate.mask, 1, 2))
        rank = np.empty(order.shape, np.int64)
        np.put_along_axis(rank, order, np.arange(order.shape[1])[None], axis=1)
        return _listed(slate, np.lexsort((rank, first), axis=1)[:, :length])


def greedy_dpp(similarity: Array, log_quality: Array, allowed: Array, length: int) -> Array:
    """Return the positions (B, K) chosen by greedy maximisation of the log-determinant, in order, K = min(length, M).

    Args:
        similarity: (B, M, M) positive semidefinite matrices with a diagonal of 1.
        log_quality: (B, M) log of the quality q of each candidate.
        allowed: (B, M) bool, True for positions that may be chosen.
        length: number of positions to choose. Once the determinant is 0, the remaining positions follow in order of
            quality. If fewer than K positions are allowed, the remaining entries are 0.
    """
    rows, width = log_quality.shape
    steps = min(length, width)
    residual = np.ones((rows, width))
    factor = np.zeros((rows, steps, width))
    free = allowed.copy()
    places = np.empty((rows, steps), np.int64)
    at = np.arange(rows)
    for step in range(steps):
        with np.errstate(divide="ignore"):
            gain = np.where(residual > 1e-10, np.log(np.maximum(residual, 1e-300)), -1e6) + 2 * log_quality
        taken = places[:, step] = _take(gain, free)
        root = np.sqrt(np.maximum(residual[at, taken], 1e-300))
        known = np.einsum("bs,bsm->bm", factor[at, :step, taken], factor[:, :step])
        row = np.where((residual[at, taken] > 1e-10)[:, None], (similarity[at, taken] - known) / root[:, None], 0.0)
        factor[:, step] = row
        residual = np.maximum(residual - row**2, 0.0)
    return places


def _take(gain: Array, free: Array) -> Array:
    """Return the best free position of each row (B,), the first among ties, and mark it as taken; 0 if none is free."""
    left = free.any(axis=1, keepdims=True)
    best = np.where(free, gain, np.where(left, -np.inf, -1.0 * np.arange(gain.shape[1]))).argmax(axis=1)
    free[np.arange(len(gain)), best] = False
    return best


def _listed(slate: Slate, places: Array) -> Slate:
    """Return the slate of the candidates at positions (B, K), with padding after the last candidate of each request."""
    taken = np.take_along_axis(slate.mask, places, axis=1)
    counts = slate.mask.sum(axis=1, keepdims=True)
    real = taken & (np.arange(places.shape[1]) < counts)
    return slate.take(places).where(real)


def _scores(slate: Slate) -> Array:
    assert slate.scores is not None
    return slate.scores


def _cosines(vectors: Array, slate: Slate) -> Array:
    own = vectors[np.where(slate.mask, slate.items, 0)]
    return np.asarray(own @ own.transpose(0, 2, 1))


def _unit(vectors: Array) -> Array:
    vectors = np.asarray(vectors, dtype=np.float64)
    norm = np.linalg.norm(vectors, axis=1, keepdims=True)
    return np.asarray(vectors / np.where(norm > 0, norm, 1.0))
