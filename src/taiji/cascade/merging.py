"""Merge the slates of several retrievers into one; retrievers that did not respond may be missing."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

import numpy as np

from taiji.core.component import Slate
from taiji.models.retrieval.union import fill_quotas, fuse_ranks


@dataclass(frozen=True)
class FusedRanks:
    """Merge by reciprocal-rank fusion; the default weight is 1. ``source`` of the result indexes ``names``."""

    names: tuple[str, ...]
    weights: Mapping[str, float] = field(default_factory=dict)

    def __call__(self, slates: Mapping[str, Slate], k: int) -> Slate:
        """Return the ``k`` items with the highest sums of weighted reciprocal ranks."""
        there = [name for name in self.names if name in slates]
        weights = np.array([self.weights.get(name, 1.0) for name in there])
        return _numbered(fuse_ranks([slates[name].items for name in there], weights, k), self.names, there)


@dataclass(frozen=True)
class FilledQuotas:
    """Merge by quotas: the first items of each retriever, in the order of ``quotas``."""

    quotas: Mapping[str, int]

    def __call__(self, slates: Mapping[str, Slate], k: int) -> Slate:
        """Return at most ``k`` items: from each retriever in turn, up to its quota, the first items not yet taken."""
        names = tuple(self.quotas)
        there = [name for name in names if name in slates]
        filled = fill_quotas([slates[name].items for name in there], [self.quotas[name] for name in there], k)
        return _numbered(filled, names, there)


def _numbered(slate: Slate, names: tuple[str, ...], there: list[str]) -> Slate:
    """Return the slate with its ``source``, given as indices into ``there``, changed to indices into ``names``."""
    numbers = np.array([names.index(name) for name in there])
    return replace(slate, source=np.where(slate.mask, numbers[slate.source], 0))
