"""Columns of intents in feature rows, made from answers, and metrics of a table with these columns."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from taiji.core.errors import InputError
from taiji.data.intent_rows import INTENTS, to_int8
from taiji.metrics.intent_sets import merged

Array = NDArray[Any]


def intent_columns(
    vectors: Array, weights: Array, levels: Sequence[Sequence[str]], counts: Sequence[int], most: int, embedder: str
) -> pl.DataFrame:
    """Return the columns :data:`INTENTS` of N feature rows. Near-duplicate intents are merged, and the weights of a row
    sum to 1.

    Args:
        vectors: (K, d) vectors of all intents, row by row, and within a row in the order of the answer.
        weights: (K,) positive weights of the intents.
        levels: one sequence per intent, with the texts of the intent's category levels; missing levels are empty texts.
        counts: number of intents of each of the N rows; the numbers sum to K.
        most: largest number of intents per row after merging.
        embedder: ``name@version`` of the vectors' embedder.

    Returns:
        Table with N rows. A row without intents is null in all columns.
    """
    if sum(counts) != len(vectors) or len(vectors) != len(weights) or len(vectors) != len(levels):
        raise InputError(
            "The numbers of intents and rows do not match.",
            where="features",
            expected=f"{sum(counts)} vectors, weights and levels",
            found=f"{len(vectors)}, {len(weights)} and {len(levels)}",
        )
    rows: list[tuple[list[int] | None, list[float] | None, list[list[str]] | None, str | None]] = []
    start = 0
    for count in counts:
        places, total = merged(vectors[start : start + count], weights[start : start + count])
        places, total = places[:most] + start, total[:most]
        if len(places):
            stored = to_int8(vectors[places]).ravel().tolist()
            rows.append((stored, (total / total.sum()).tolist(), [list(levels[place]) for place in places], embedder))
        else:
            rows.append((None, None, None, None))
        start += count
    return pl.DataFrame(rows, schema=INTENTS, orient="row")


def intent_metrics(table: pl.DataFrame) -> dict[str, float]:
    """Return metrics of the intents in a feature table by name.

    ``with_intents`` is the share of rows with intents. ``intents`` and ``first_weight`` are means over these rows: the
    number of intents, and the weight of the first intent.
    """
    counts = table["intent_weights"].list.len().fill_null(0)
    some = counts.filter(counts > 0)
    first = table["intent_weights"].list.first().drop_nulls()
    return {
        "with_intents": float(np.mean(counts.to_numpy() > 0)) if len(counts) else 0.0,
        "intents": float(np.mean(some.to_numpy())) if len(some) else 0.0,
        "first_weight": float(np.mean(first.to_numpy())) if len(first) else 0.0,
    }
