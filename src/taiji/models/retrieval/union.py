"""Union of several retrievers, by reciprocal-rank fusion or by a quota per retriever."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from taiji.core.component import NO_ITEM, Requests, Retriever, Slate
from taiji.core.errors import ConfigError
from taiji.models.retrieval.top_items import best_of

Array = NDArray[Any]
SMOOTHING = 60.0
"""Constant that reciprocal-rank fusion adds to a rank before inverting it (Cormack, Clarke & Büttcher, SIGIR 2009)."""


class RankFusion:
    """Retriever that scores an item by the sum of weight / (60 + rank) over the retrievers that found it, with ranks
    from 1 (Cormack, Clarke & Büttcher, SIGIR 2009).

    Args:
        retrievers: retrievers to merge. The ``source`` of an item in a slate is the index of the retriever that
            contributes most to its score.
        weights: one weight per retriever; 1 by default.
        depth: number of candidates requested from each retriever, regardless of ``k``.
    """

    def __init__(self, retrievers: Sequence[Retriever], weights: ArrayLike | None = None, depth: int = 200) -> None:
        self.retrievers, self.depth = tuple(retrievers), depth
        self.weights = np.ones(len(self.retrievers)) if weights is None else np.asarray(weights, dtype=np.float64)
        if self.weights.shape != (len(self.retrievers),) or not (self.weights > 0).all():
            raise ConfigError(
                "A union needs one positive weight per retriever.",
                where="weights",
                expected=f"{len(self.retrievers)} numbers above 0",
                found=str(self.weights.tolist()),
            )

    def retrieve(self, requests: Requests, k: int) -> Slate:
        """Return the ``k`` candidates with the highest fused scores."""
        slates = [retriever.retrieve(requests, self.depth) for retriever in self.retrievers]
        return fuse_ranks([slate.items for slate in slates], self.weights, k)


class Quotas:
    """Retriever that takes a quota of candidates from each of several retrievers in turn. An item that several of them
    return counts only towards the quota of the first.

    Args:
        retrievers: retrievers with their quotas. If a retriever finds too few items, the union is shorter.
    """

    def __init__(self, retrievers: Sequence[tuple[Retriever, int]]) -> None:
        self.retrievers = tuple(retrievers)
        if not self.retrievers or any(quota < 1 for _, quota in self.retrievers):
            raise ConfigError("A union needs retrievers with a quota of at least 1 each.", where="quotas")

    def retrieve(self, requests: Requests, k: int) -> Slate:
        """Return up to ``k`` candidates, retriever by retriever. The score of a candidate is minus its position in the
        union, from 0."""
        taken = 0
        slates = []
        for retriever, quota in self.retrievers:
            slates.append(
                retriever.retrieve(requests, quota + taken).items
            )  # enough even if it returns all items of the earlier retrievers again
            taken += quota
        return fill_quotas(slates, [quota for _, quota in self.retrievers], k)


def fuse_ranks(slates: Sequence[Array], weights: Array, k: int) -> Slate:
    """Return the ``k`` items of each request with the largest sums of ``weight / (60 + rank)``, with ranks from 1.

    Args:
        slates: per retriever (B, M_r) items, best first, padded with −1.
        weights: (R,) weight of each retriever.
    """
    rows = len(slates[0])
    items = np.concatenate(slates, axis=1)
    source = np.concatenate([np.full(s.shape[1], number) for number, s in enumerate(slates)])
    gain = np.concatenate([w / (SMOOTHING + 1 + np.arange(s.shape[1])) for w, s in zip(weights, slates)])
    row, place = np.nonzero(items != NO_ITEM)
    found, gains = items[row, place], gain[place]
    width = int(found.max(initial=0)) + 1
    pairs, inverse = np.unique(row * width + found, return_inverse=True)
    order = np.lexsort((-gains, inverse))
    first = order[np.searchsorted(inverse[order], np.arange(len(pairs)))]
    total = np.bincount(inverse, gains, minlength=len(pairs))
    owner, own = pairs // width, pairs % width
    at = np.arange(len(pairs)) - np.searchsorted(owner, owner)
    scores = np.full((rows, int(at.max(initial=-1)) + 1), -np.inf)
    scores[owner, at] = np.round(total, 12)
    candidates, sources = np.full(scores.shape, NO_ITEM), np.zeros(scores.shape, np.int64)
    candidates[owner, at], sources[owner, at] = own, source[place[first]]
    return best_of(Slate(candidates, source=sources), scores, k)


def fill_quotas(slates: Sequence[Array], quotas: Sequence[int], k: int) -> Slate:
    """Return for each retriever its first ``quota`` items that no earlier retriever has contributed, and at most ``k``
    items in total.

    Args:
        slates: per retriever (B, M_r) items, best first, padded with −1.
        quotas: one per retriever.
    """
    parts: list[Array] = []
    for items, quota in zip(slates, quotas):
        new = items != NO_ITEM
        for earlier in parts:
            new &= ~(items[:, :, None] == earlier[:, None, :]).any(axis=2)
        new &= np.cumsum(new, axis=1) <= quota
        parts.append(np.where(new, items, NO_ITEM))
    items = np.concatenate(parts, axis=1)
    source = np.concatenate([np.full(p.shape, number) for number, p in enumerate(parts)], axis=1)
    listed = Slate(items, source=source).kept(items != NO_ITEM).first(min(k, sum(quotas)))
    return replace(listed, scores=np.where(listed.mask, -np.arange(listed.items.shape[1], dtype=np.float64), 0.0))
