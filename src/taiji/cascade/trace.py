"""Trace of every candidate through a cascade: its retrievers, its scores at each step, and where it was dropped."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from taiji.core.component import NO_ITEM, Predictions, Slate

Array = NDArray[Any]


class Trace:
    """Record of one call of a cascade, created only if a trace was requested.

    Steps record their slates; :meth:`frame` combines the records per request and item.
    """

    def __init__(self) -> None:
        self._parts: list[pl.DataFrame] = []
        self._left: list[pl.DataFrame] = []

    def scores(self, slate: Slate, columns: Mapping[str, Array]) -> None:
        """Record values (B, M) of a slate's items, by name."""
        row, place = np.nonzero(slate.mask)
        values = {name: np.asarray(values)[row, place] for name, values in columns.items()}
        self._parts.append(pl.DataFrame({"request": row, "item": slate.items[row, place], **values}))

    def predictions(self, slate: Slate, predictions: Predictions, step: str) -> None:
        """Record a ranker's predictions under the names ``step: task``."""
        self.scores(slate, {f"{step}: {task}": values for task, values in predictions.items()})

    def left_out(self, before: Slate, after: Slate, reason: str) -> None:
        """Record the items of ``before`` that are not in ``after``, with the reason why a step dropped them."""
        gone = (
            ~np.stack([np.isin(b, a) for b, a in zip(before.items, after.items)]) if len(before.items) else before.mask
        )
        row, place = np.nonzero(gone & before.mask)
        self._left.append(
            pl.DataFrame(
                {"request": row, "item": before.items[row, place], "left_out": [reason] * len(row)},
                schema={"request": pl.Int64, "item": pl.Int64, "left_out": pl.String},
            )
        )

    def frame(self, shown: Slate) -> pl.DataFrame:
        """Return one row per request and candidate, with its recorded values and its ``place`` in the list.

        For a candidate that is not in the list, ``left_out`` is the reason given by the last step that dropped it.
        """
        self.scores(shown, {"place": np.broadcast_to(np.arange(1, shown.items.shape[1] + 1), shown.items.shape)})
        keys = ["request", "item"]
        out = pl.concat([part.select(keys) for part in self._parts]).unique(maintain_order=True)
        for part in self._parts:
            out = out.join(part, on=keys, how="left", maintain_order="left")
        left = pl.concat(self._left).unique(keys, keep="last", maintain_order=True) if self._left else None
        if left is not None:
            out = out.join(left, on=keys, how="left", maintain_order="left")
            out = out.with_columns(left_out=pl.when(pl.col("place").is_null()).then("left_out"))
        return out.sort("request", "place", "item", nulls_last=True)


def rank_columns(slates: Mapping[str, Slate]) -> list[tuple[Slate, dict[str, Array]]]:
    """Return each retriever's slate with a named column of its items' ranks, counted from 1 (0 for padding)."""
    out = []
    for name, slate in slates.items():
        ranks = np.broadcast_to(np.arange(1, slate.items.shape[1] + 1), slate.items.shape)
        out.append((slate, {f"rank in {name}": np.where(slate.items == NO_ITEM, 0, ranks)}))
    return out
