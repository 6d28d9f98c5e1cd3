"""Codes of the items of a catalogue, looked up by item or, in reverse, by code."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from taiji.core.errors import InputError
from taiji.data.dataset import Dataset
from taiji.models.codes.coder import Coder
from taiji.models.codes.quality import code_groups, quality

Array = NDArray[Any]
VERSION = "code_version"
"""Name of the column of the item table with the version of the coder that assigned the codes."""


@dataclass(frozen=True, eq=False)
class ItemCodes:
    """Codes of all items of a catalogue. It implements :class:`taiji.core.component.ItemCoder`.

    Attributes:
        table: (N, L) int64 codes of each item.
        sizes: number of codes per level.
        version: version of the coder that assigned the codes; only this coder can decode them.
    """

    table: Array
    sizes: tuple[int, ...]
    version: str

    def __post_init__(self) -> None:
        table = np.asarray(self.table, dtype=np.int64)
        object.__setattr__(self, "table", table)
        if table.ndim != 2 or table.shape[1] != len(self.sizes) or ((table < 0) | (table >= self.sizes)).any():
            raise InputError(
                "The codes are out of range for their levels.",
                where="item codes",
                expected=f"shape (N, {len(self.sizes)}), at least 0 and below {tuple(self.sizes)}",
                found=f"shape {table.shape}, from {table.min(initial=0)} to {table.max(initial=0)}",
            )

    @classmethod
    def of(cls, coder: Coder, vectors: Array) -> ItemCodes:
        """Return the codes of items 0 … N − 1 with the given vectors (N, d)."""
        return cls(coder.encode(vectors), coder.sizes, coder.version)

    def __len__(self) -> int:
        return len(self.table)

    def encode(self, items: Array) -> Array:
        """Return the codes (B, L) of items (B,)."""
        return self.table[items]

    def decode(self, codes: Array) -> list[Array]:
        """Return the items that have the codes in each row of ``codes`` (B, L), in ascending order. A row can have no
        item, one item, or several items (a collision)."""
        groups = code_groups(np.concatenate([self.table, np.asarray(codes, np.int64)]))
        mine, asked = groups[: len(self)], groups[len(self) :]
        order = np.argsort(mine, kind="stable")
        starts = np.searchsorted(mine[order], asked, side="left")
        ends = np.searchsorted(mine[order], asked, side="right")
        return [order[start:end] for start, end in zip(starts, ends)]

    def on(self, dataset: Dataset) -> Dataset:
        """Return the dataset with further columns in its item table: the codes ``code_1``, ``code_2``, … and the
        coder's version ``code_version``.

        Raises:
            InputError: the dataset has a different number of items.
        """
        if len(self) != dataset.n_items:
            raise InputError(
                "The codes belong to a different catalogue.",
                where="item codes",
                expected=f"{dataset.n_items} items",
                found=f"codes of {len(self)} items",
            )
        columns = [pl.Series(f"code_{level + 1}", column) for level, column in enumerate(self.table.T)]
        return replace(dataset, items=dataset.items.with_columns(*columns, pl.lit(self.version).alias(VERSION)))

    def quality(self) -> dict[str, float]:
        """Return measures of collisions, utilisation and entropy by name."""
        return quality(self.table, self.sizes)
