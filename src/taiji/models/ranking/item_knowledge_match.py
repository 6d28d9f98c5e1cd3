"""Pair field for the agreement of a candidate with the user's history, in texts that a language model wrote.

For the table of texts, see :mod:`taiji.data.knowledge_rows`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from taiji.core.errors import ConfigError
from taiji.data.dataset import Dataset
from taiji.data.knowledge_rows import own_knowledge, read_knowledge
from taiji.data.vocabulary import stable_hash
from taiji.language.item_vectors import embedded
from taiji.models.ranking.pair_fields import TextMatch

Array = NDArray[Any]
NEVER = np.iinfo(np.int64).max


class ItemKnowledge(TextMatch):
    """Field with the values of :class:`TextMatch`, computed from texts that a language model wrote once per item.

    The text of an item is used from the time at which it became available. Before this time, or without a text, the
    item counts as unknown. The whole table of texts is stored with the field, so a saved ranker can also score new
    items.

    Args:
        table: Parquet file that the stage ``item_knowledge`` wrote. If empty, the texts come from the column
            ``knowledge`` of the item table.
        embedder, vector, history, refreshes, name, least_rows: see :class:`TextMatch`.
    """

    def __init__(
        self,
        table: str = "",
        embedder: str = "auto",
        vector: int = 32,
        history: int = 50,
        refreshes: int = 4,
        name: str = "item_knowledge",
        least_rows: int = 0,
    ) -> None:
        super().__init__(embedder, vector, history, refreshes, name, least_rows)
        self.table = table
        # The path is not saved, so that two runs that read the same texts give the same ranker.
        self.options = {**self.options, "table": ""}
        self.told: Array = np.zeros(0, dtype=np.int64)
        self.texts: list[str] = []
        self.written: Array = np.zeros(0, dtype=np.int64)
        self._since: Array = np.zeros(0, dtype=np.int64)
        self._until = NEVER

    def take(self, table: pl.DataFrame) -> None:
        """Use the texts of a table in the form that :func:`taiji.data.knowledge_rows.read_knowledge` returns."""
        used = table.filter(pl.col("text").is_not_null() & (pl.col("text") != ""))
        hashes = stable_hash(used["item_id"].cast(pl.String).to_list())
        order = np.argsort(hashes, kind="stable")
        self.told, self.written = hashes[order], used["available_at"].to_numpy()[order].astype(np.int64)
        self.texts = used["text"].gather(order.tolist()).to_list()

    def fit(self, dataset: Dataset, rows: pl.DataFrame, until: int) -> None:
        """Read the texts, and learn the item vectors from the log before each cutoff time.

        Raises:
            ConfigError: there are no texts.
        """
        own = read_knowledge(self.table) if self.table else own_knowledge(dataset)
        if own is not None:
            self.take(own)
        elif not len(self.told):
            raise ConfigError(
                "The ranker needs item knowledge, but there is none.",
                where=f"field {self.name}",
                expected="texts of the stage item_knowledge, or a column `knowledge` of the item table",
                found="neither, and `table` is empty",
                fix="add the stage under `stages`, or write {field: item_knowledge, table: PATH} in ranking.pair_fields",
            )
        self._until = until
        super().fit(dataset, rows, until)

    def _start(self, dataset: Dataset) -> None:
        self._since = self._times(self._hashes_of(dataset, np.arange(dataset.n_items)))
        super()._start(dataset)

    def tells(self, dataset: Dataset) -> bool:
        """Return True if more than one item has a text."""
        return len(self.told) > 1

    def whitens(self, dataset: Dataset, items: Array) -> Array:
        """Return a mask (n,) bool of the items that had a text at the end of training."""
        return self._times(self._hashes_of(dataset, items)) <= self._until

    def embed(self, dataset: Dataset, items: Array) -> Array:
        """Return the vectors of the items' texts, (n, d) float32; zero for items without a text."""
        places = self._places(self._hashes_of(dataset, items))
        return embedded(self.embedder_used, [self.texts[place] if place >= 0 else "" for place in places])

    def known_at(self, numbers: Array, times: Array | int) -> Array:
        """Return the item indices, with −1 for items without a text at the given times (microseconds)."""
        if not len(self._since):
            return np.full_like(numbers, -1)
        return np.where((numbers >= 0) & (self._since[numbers] <= times), numbers, -1)

    def newcomers(self, dataset: Dataset, numbers: Array) -> Array:
        """Add the vectors of items that are new since training, from their texts, and return the item indices."""
        new = np.flatnonzero(numbers < 0)
        if len(new) and self.space.width:
            self._since = np.concatenate([self._since, self._times(self._hashes_of(dataset, new))])
        return super().newcomers(dataset, numbers)

    def _hashes_of(self, dataset: Dataset, items: Array) -> Array:
        return stable_hash(dataset.items["item_id"].cast(pl.String).gather(items.tolist()).to_list())

    def _places(self, hashes: Array) -> Array:
        """Return the index of each item's text in ``texts``; −1 for an item without a text."""
        if not len(self.told):
            return np.full(len(hashes), -1)
        places = np.minimum(np.searchsorted(self.told, hashes), len(self.told) - 1)
        return np.where(self.told[places] == hashes, places, -1)

    def _times(self, hashes: Array) -> Array:
        """Return the time (microseconds) from which each item's text is used; :data:`NEVER` without a text."""
        places = self._places(hashes)
        return np.where(places >= 0, self.written[places], NEVER) if len(self.told) else np.full(len(hashes), NEVER)

    def tensors(self) -> dict[str, Array]:
        """Return the arrays of :class:`TextMatch`, and the texts with the times from which they are used."""
        encoded = [text.encode() for text in self.texts]
        return {
            **super().tensors(),
            "told": self.told,
            "written": self.written,
            "since": self._since,
            "characters": np.frombuffer(b"".join(encoded), dtype=np.uint8).copy(),
            "ends": np.cumsum([len(text) for text in encoded], dtype=np.int64),
        }

    def restore(self, config: Mapping[str, Any], tensors: Mapping[str, Array]) -> None:
        """Restore the field from :meth:`config` and :meth:`tensors`."""
        super().restore(config, tensors)
        self.told, self.written, self._since = tensors["told"], tensors["written"], tensors["since"]
        characters, ends = bytes(tensors["characters"]), tensors["ends"]
        self.texts = [characters[start:end].decode() for start, end in zip(np.append(0, ends)[:-1], ends)]
