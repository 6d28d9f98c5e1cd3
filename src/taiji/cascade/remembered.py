"""Stored outputs of components for known requests, computed once and shared by all variants of a cascade."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from taiji.core.component import NO_ITEM, Predictions, Requests, Scorer, Slate
from taiji.core.progress import progress

Array = NDArray[Any]
BLOCK = 128
"""Number of requests scored at a time."""


@dataclass
class Rows:
    """Row indices of the current requests."""

    rows: slice = field(default_factory=lambda: slice(0, 0))


class RememberedRetriever:
    """Retriever that returns stored slates.

    Args:
        slate: stored slates of all requests, in order.
        at: row indices of the current requests, set by the caller.
    """

    def __init__(self, slate: Slate, at: Rows) -> None:
        self.slate, self.at = slate, at

    def retrieve(self, requests: Requests, k: int) -> Slate:
        """Return the stored items of the current requests."""
        rows, slate = self.at.rows, self.slate
        assert slate.scores is not None and slate.source is not None
        return Slate(slate.items[rows, :k], slate.scores[rows, :k], slate.source[rows, :k])


class RememberedScorer:
    """Predictions of a scorer for all items found by any retriever, computed once.

    Args:
        scorer: the scorer.
        requests: all requests.
        slates: slates of each retriever for all requests.
        at: row indices of the current requests, set by the caller.
    """

    def __init__(self, scorer: Scorer[Any], requests: Requests, slates: Mapping[str, Slate], at: Rows) -> None:
        self.at = at
        self.items = distinct(np.concatenate([slate.items for slate in slates.values()], axis=1))
        parts: list[Predictions] = []
        with progress("scoring candidates", len(requests)) as update:
            for start in range(0, len(requests), BLOCK):
                block = slice(start, start + BLOCK)
                state = scorer.encode(requests.take(block))
                parts.append(scorer.score(state, Slate(self.items[block])))
                update(min(start + BLOCK, len(requests)))
        self.predictions = {
            task: np.concatenate([part[task] for part in parts]) for task in (parts[0] if parts else ())
        }

    def encode(self, requests: Requests) -> None:
        """Return None: ``at`` identifies the requests, so no state is needed."""

    def score(self, state: None, slate: Slate) -> Predictions:
        """Return the predictions of the slate's items."""
        items, rows = self.items[self.at.rows], np.arange(len(slate.items))[:, None]
        ranked = np.where(items == NO_ITEM, np.iinfo(np.int64).max, items)
        place = np.stack([np.searchsorted(have, asked) for have, asked in zip(ranked, slate.items)])
        place = np.minimum(place, items.shape[1] - 1)
        return {task: values[self.at.rows][rows, place] for task, values in self.predictions.items()}


def distinct(items: Array) -> Array:
    """Return each row's distinct items (B, M'), ascending, padded with −1 at the end."""
    ordered = np.sort(np.where(items == NO_ITEM, np.iinfo(np.int64).max, items), axis=1)
    repeated = np.zeros(ordered.shape, dtype=bool)
    repeated[:, 1:] = ordered[:, 1:] == ordered[:, :-1]
    there = ~repeated & (ordered != np.iinfo(np.int64).max)
    out = np.where(there, ordered, NO_ITEM)
    out = np.take_along_axis(out, np.argsort(~there, axis=1, kind="stable"), axis=1)
    return out[:, : int(there.sum(axis=1).max(initial=1))]
