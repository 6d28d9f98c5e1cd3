"""The catalogue as vectors: nearest items of an answer's embedding, and the rank of the true item."""

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
"""Similarities within this distance are tied. It exceeds the rounding errors of different orders of summation."""
SEARCH_BLOCK = 8_000_000
"""Number of similarities held at once."""


@dataclass(frozen=True)
class Found:
    """Nearest items of queries, each array (E,).

    Attributes:
        item: nearest catalogue item; of items with the same text, the most frequent one.
        similarity: cosine to it.
        above: number of items strictly nearer than the target.
        tied: number of items as near as the target, including itself.
    """

    item: Array
    similarity: Array
    above: Array
    tied: Array


class Catalogue:
    """Embeddings of all item texts; items with the same text share a row.

    Args:
        dataset: source of items and history.
        embedder: encoder of the item lines.
        as_of: interactions before this time decide which item represents a shared text.
        title_characters: length at which titles are cut, as in the prompts.
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
        """(n_items, d), one row per item."""
        return self._vectors[self._text]

    def vectors_of(self, items: Array | Sequence[int]) -> Array:
        """Vectors of items (…,): (…, d)."""
        found: Array = self._vectors[self._text[np.asarray(items, dtype=np.int64)]]
        return found

    def search(self, queries: Array, targets: Array) -> Found:
        """Return the nearest item of each query (E, d), or of any query in each set (E, m, d), and the ranks of the
        targets (E,); exact search."""
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
        """Return the ``count`` nearest texts of each query (E, d), or set of queries (E, m, d), nearest first: items
        and cosines, each (E, count).

        A text shared by several items counts once, under the item that represents it; ties go to the earlier text.
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
        """Yield, per block of queries (E, d), their rows and cosines to all texts (rows, texts); for a set (E, m, d)
        the best cosine."""
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
