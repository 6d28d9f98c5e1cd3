"""The catalogue as vectors: where an answer's embedding lands, and how far down its list the true item stands."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from taiji.reasoning.prompts import item_lines

if TYPE_CHECKING:
    from taiji.data.dataset import Dataset
    from taiji.language.embed import Embedder

Array = NDArray[Any]
SAME = 1e-6
"""Similarities this close are a tie: sums in another order differ by less."""
SEARCH_BLOCK = 8_000_000
"""Similarities held at once."""


@dataclass(frozen=True)
class Found:
    """Items that queries landed on, each array (E,).

    Attributes:
        item: nearest catalogue item; among items of the same text the one most interacted with.
        similarity: cosine to it.
        above: items strictly nearer than the target.
        tied: items exactly as near as the target, itself included.
    """

    item: Array
    similarity: Array
    above: Array
    tied: Array


class Catalogue:
    """Every item's text embedded once; items of the same text share a row.

    Args:
        dataset: items and history.
        embedder: encodes the item lines.
        as_of: interactions before this time decide which item stands for a text that several items have.
        title_characters: at which titles are cut, as in the prompts.
    """

    def __init__(self, dataset: Dataset, embedder: Embedder, as_of: int, title_characters: int = 80) -> None:
        lines = item_lines(dataset, title_characters)
        numbers: dict[str, int] = {}
        self._text = np.array([numbers.setdefault(line, len(numbers)) for line in lines], dtype=np.int64)
        self._vectors = np.asarray(embedder.encode(list(numbers)), dtype=np.float32)
        self._copies = np.bincount(self._text, minlength=len(numbers))
        past = np.asarray(dataset.history.items)[np.asarray(dataset.history.times) < as_of]
        counts = np.bincount(past, minlength=dataset.n_items)
        order = np.lexsort((-np.arange(dataset.n_items), counts))  # ascending: the last write wins
        self._first = np.zeros(len(numbers), dtype=np.int64)
        self._first[self._text[order]] = order

    @property
    def vectors(self) -> Array:
        """(n_items, d) a row per item."""
        return self._vectors[self._text]

    def vectors_of(self, items: Array | Sequence[int]) -> Array:
        """Vectors of items (…,): (…, d)."""
        found: Array = self._vectors[self._text[np.asarray(items, dtype=np.int64)]]
        return found

    def search(self, queries: Array, targets: Array) -> Found:
        """Nearest item of each query (E, d), or of each set of queries (E, m, d) the one nearest to any, and where the targets (E,) stand; exact search."""
        total = len(queries)
        item, above, tied = (np.zeros(total, dtype=np.int64) for _ in range(3))
        similarity = np.zeros(total, dtype=np.float64)
        for part, near in self._cosines(queries):
            best = near.argmax(axis=1)
            item[part], similarity[part] = self._first[best], near.max(axis=1)
            own = near[np.arange(len(near)), self._text[targets[part]]][:, None]
            above[part] = (near > own + SAME) @ self._copies
            tied[part] = (np.abs(near - own) <= SAME) @ self._copies
        return Found(item, similarity, above, tied)

    def nearest(self, queries: Array, count: int) -> tuple[Array, Array]:
        """The ``count`` nearest texts of each query (E, d), or set of queries (E, m, d), nearest first: their items and cosines, each (E, count).

        Texts that several items share count once, under the item that stands for them; ties go to the earlier text.
        """
        count = min(count, len(self._vectors))
        items, similarity = np.zeros((len(queries), count), dtype=np.int64), np.zeros((len(queries), count))
        for part, near in self._cosines(queries):
            best = np.sort(
                np.argpartition(-near, count - 1, axis=1)[:, :count], axis=1
            )  # by text first, so that ties keep that order
            best = np.take_along_axis(
                best, np.argsort(-np.take_along_axis(near, best, axis=1), axis=1, kind="stable"), axis=1
            )
            items[part], similarity[part] = self._first[best], np.take_along_axis(near, best, axis=1)
        return items, similarity

    def _cosines(self, queries: Array) -> Iterator[tuple[slice, Array]]:
        """Yield, for a block of queries (E, d) at a time, their rows and cosines to all texts (rows, texts); the best cosine of a set (E, m, d)."""
        width = queries.shape[1] if queries.ndim == 3 else 1
        size = max(1, SEARCH_BLOCK // max(len(self._vectors) * width, 1))
        for start in range(0, len(queries), size):
            part = slice(start, start + size)
            near = queries[part].astype(np.float32) @ self._vectors.T
            if queries.ndim == 3:
                there = np.abs(queries[part]).sum(axis=2) > 0
                near = np.where(there[:, :, None], near, np.where(there.any(axis=1), -1.0, 0.0)[:, None, None]).max(
                    axis=1
                )
            yield part, near
