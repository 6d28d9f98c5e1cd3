"""Embeddings of the catalogue: find the items nearest to an answer's embedding, and the rank of the true item."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from taiji.models.retrieval.top_items import top_items
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
    """Nearest items of E queries; each array has the shape (E,).

    Attributes:
        item: nearest catalogue item; of items with the same text, the one with the most interactions.
        similarity: cosine between the query and this item.
        above: number of items strictly nearer than the target.
        tied: number of items as near as the target, including the target.
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
        as_of: cutoff, in microseconds. A text shared by several items is represented by the item with the most
            interactions before this time.
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
        """Vectors (n_items, d), one row per item."""
        return self._vectors[self._text]

    def vectors_of(self, items: Array | Sequence[int]) -> Array:
        """Return the vectors (…, d) of items (…,)."""
        found: Array = self._vectors[self._text[np.asarray(items, dtype=np.int64)]]
        return found

    def search(self, queries: Array, targets: Array) -> Found:
        """Return the nearest item and the target's rank for each query or set of queries. The search is exact.

        An item's similarity to a set is its best similarity to a query of the set.

        Args:
            queries: (E, d) or (E, m, d); an all-zero query of a set is ignored.
            targets: (E,) dense item ids.
        """
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
        """Return the items and cosines, each (E, count), of the ``count`` texts nearest to each query, nearest first.

        A text shared by several items counts once, and the item with the most interactions stands for it. Ties go to
        the earlier text. Queries are as in :meth:`search`.
        """
        count = min(count, len(self._vectors))
        items, similarity = np.zeros((len(queries), count), dtype=np.int64), np.zeros((len(queries), count))
        for part, near in self._cosines(queries):
            found = top_items(near, count)  # ties go to the earlier text
            assert found.scores is not None
            items[part], similarity[part] = self._first[found.items], found.scores
        return items, similarity

    def _cosines(self, queries: Array) -> Iterator[tuple[slice, Array]]:
        """Yield (slice of queries, cosines to all texts (rows, texts)), block by block. For a set of queries (E, m, d),
        the cosine is the best one over the set."""
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
