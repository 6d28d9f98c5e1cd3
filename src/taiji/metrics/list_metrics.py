"""Metrics of retrieved or recommended lists: accuracy, coverage, novelty and diversity.

A list is a row of items, best first, padded with −1. All metrics except :func:`coverage` return one value per request;
the caller averages the requests of each user and resamples users (see :mod:`taiji.metrics.bootstrap`).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from taiji.core.component import NO_ITEM
from taiji.core.errors import InputError

Array = NDArray[Any]


@dataclass(frozen=True, eq=False)
class Targets:
    """Target items of each request.

    Attributes:
        offsets: (B + 1,); the distinct targets of request b are ``items[offsets[b]:offsets[b + 1]]``.
        items: (T,), ascending within each request.

    Raises:
        InputError: the targets of a request are not ascending and distinct.
    """

    offsets: Array
    items: Array

    def __post_init__(self) -> None:
        inner = np.setdiff1d(np.arange(1, len(self.items)), self.offsets)
        if (self.items[inner] <= self.items[inner - 1]).any():
            raise InputError(
                "The targets of a request are not ascending and distinct.", where="Targets", fix="use Targets.of"
            )

    @classmethod
    def of(cls, requests: Array, items: Array, count: int) -> Targets:
        """Create targets for ``count`` requests from pairs of request index (P,) and item (P,), in any order;
        repeated pairs count once."""
        width = int(items.max(initial=-1)) + 1
        pairs = np.unique(np.asarray(requests, np.int64) * max(width, 1) + items)
        offsets = np.searchsorted(pairs, np.arange(count + 1) * max(width, 1))
        return cls(offsets, pairs % max(width, 1))

    def __len__(self) -> int:
        return len(self.offsets) - 1

    @property
    def counts(self) -> Array:
        """Number of targets of each request (B,)."""
        return np.diff(self.offsets)


def hits(lists: Array, targets: Targets) -> Array:
    """Return a mask (B, K) of the positions of the lists (B, K) that hold a target of the request.

    Raises:
        InputError: the numbers of lists and requests differ, or a list contains an item twice.
    """
    if len(lists) != len(targets):
        raise InputError("Lists and targets differ in number.", expected=f"{len(targets)} lists", found=str(len(lists)))
    width = int(max(lists.max(initial=0), targets.items.max(initial=0))) + 1
    owner = np.repeat(np.arange(len(targets)), targets.counts)
    wanted = owner * width + targets.items
    asked = np.arange(len(lists))[:, None] * width + lists
    there = np.sort(np.where(lists == NO_ITEM, -1 - np.arange(lists.shape[1]), lists), axis=1)
    twice = (np.diff(there, axis=1) == 0).any(axis=1)
    if twice.any():
        raise InputError(
            "A list contains an item twice.",
            expected="different items per list",
            where=f"list {int(np.flatnonzero(twice)[0])}",
        )
    if not len(wanted):
        return np.zeros(lists.shape, dtype=bool)
    at = np.minimum(np.searchsorted(wanted, asked), len(wanted) - 1)
    return (wanted[at] == asked) & (lists != NO_ITEM)


def recall(hit: Array, counts: Array, k: int) -> Array:
    """Return the share (B,) of each request's targets that are among the first ``k`` items of its list, from hits (B,
    K); NaN without a target."""
    return _divide(hit[:, :k].sum(axis=1), counts)


def hit_rate(hit: Array, counts: Array, k: int) -> Array:
    """Return 1 (B,) where a target is among the first ``k`` items, else 0; NaN without a target."""
    return np.where(counts > 0, hit[:, :k].any(axis=1), np.nan)


def ndcg(hit: Array, counts: Array, k: int) -> Array:
    """Return the discounted gain (B,) of the first ``k`` items, relative to a list that starts with all targets; NaN
    without a target."""
    discount = 1 / np.log2(np.arange(2, k + 2))
    best = np.append(0.0, np.cumsum(discount))[np.minimum(counts, k)]
    return _divide(hit[:, :k] @ discount[: hit.shape[1]], best)


def coverage(lists: Array, items: int, k: int) -> float:
    """Return the share of the ``items`` items of the catalogue that are among the first ``k`` of any list."""
    shown = lists[:, :k]
    return len(np.unique(shown[shown != NO_ITEM])) / items


def novelty(lists: Array, popularity: Array, k: int) -> Array:
    """Return the mean self-information (B,), in bits, of the first ``k`` items: −log2 of the share of users who
    interacted with the item before.

    Args:
        lists: (B, K).
        popularity: (N,) shares of users; for an item without users, half the smallest positive share is used.
        k: number of positions that count.
    """
    floor = popularity[popularity > 0].min(initial=1.0) / 2
    bits = -np.log2(np.maximum(popularity, floor))
    return _mean(bits[np.maximum(lists[:, :k], 0)], lists[:, :k] != NO_ITEM)


def diversity(lists: Array, categories: Array, k: int) -> Array:
    """Return the share (B,) of pairs of the first ``k`` items that differ in category; NaN with fewer than two items.

    Args:
        lists: (B, K).
        categories: (N,) codes.
        k: number of positions that count.
    """
    shown = lists[:, :k]
    there = shown != NO_ITEM
    kind = np.where(there, categories[np.maximum(shown, 0)], -1)
    count = there.sum(axis=1)
    pairs = count * (count - 1) / 2
    same = np.zeros(len(lists))
    for step in range(1, shown.shape[1]):
        same += ((kind[:, step:] == kind[:, :-step]) & there[:, step:] & there[:, :-step]).sum(axis=1)
    return 1 - _divide(same, pairs)


def _mean(values: Array, there: Array) -> Array:
    return _divide(np.where(there, values, 0.0).sum(axis=1), there.sum(axis=1))


def _divide(top: Array, bottom: Array) -> Array:
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.where(np.asarray(bottom) > 0, top / bottom, np.nan)
