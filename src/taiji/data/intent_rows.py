"""Columns of intents in a feature table: what a model foresees for a user, as a few vectors with weights and claimed categories.

A row has up to m intents by falling weight. A vector is kept as int8 in a scale of its own, since only its direction is used.
Weights of a row sum to 1.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from taiji.core.errors import ArtifactError

Array = NDArray[Any]
INTENTS: dict[str, pl.DataType] = {
    "intents": pl.List(pl.Int8),
    "intent_weights": pl.List(pl.Float32),
    "intent_levels": pl.List(pl.List(pl.String)),
    "intent_embedder": pl.String(),
}
"""Columns of a feature table whose answers are sets: vectors one after another, weights and category levels of each intent, and ``name@version`` of the embedder, behind a plus the version of a map of its space."""
FULL_SCALE = 127


@dataclass(frozen=True)
class IntentRows:
    """Intents of many feature rows.

    Attributes:
        vectors: (N, m, d) float32 unit vectors, zero behind a row's last intent.
        weights: (N, m) float32, each row summing to 1, or to 0 where there is no intent.
        levels: (N, m, depth) category levels, None where there is none.
    """

    vectors: Array
    weights: Array
    levels: Array


def to_int8(vectors: Array) -> NDArray[np.int8]:
    """Return vectors (..., d) in int8, each scaled so that its largest value is :data:`FULL_SCALE`; zero stays zero."""
    largest = np.abs(vectors).max(axis=-1, keepdims=True, initial=0.0)
    scaled = np.divide(vectors, largest, out=np.zeros_like(vectors, dtype=np.float64), where=largest > 0)
    return np.rint(scaled * FULL_SCALE).astype(np.int8)


def directions(stored: NDArray[np.int8]) -> NDArray[np.float32]:
    """Return the unit vectors (..., d) of stored ones; zero where a row is zero."""
    values = stored.astype(np.float32)
    lengths = np.linalg.norm(values, axis=-1, keepdims=True)
    return np.divide(values, lengths, out=np.zeros_like(values), where=lengths > 0)


def intent_rows(table: pl.DataFrame, most: int, depth: int) -> IntentRows:
    """Read :data:`INTENTS` of a feature table.

    Args:
        table: feature rows, or exposures that they were joined to.
        most: m; further intents of a row are left out.
        depth: category levels.

    Raises:
        ArtifactError: the table has no intents, or its vectors are of different lengths.
    """
    missing = [name for name in INTENTS if name not in table.columns]
    if missing:
        raise ArtifactError(
            "The feature table has no intents.",
            expected=f"columns {', '.join(INTENTS)}",
            found=f"no {', '.join(missing)}",
            fix="make the features with reasoning.prompts.answer: set",
        )
    told = [
        (row, stored.to_numpy(), weights.to_numpy(), levels.to_list())
        for row, (stored, weights, levels) in enumerate(
            zip(table["intents"], table["intent_weights"], table["intent_levels"])
        )
        if weights is not None and len(weights)
    ]
    sizes = sorted({len(stored) / len(weights) for _, stored, weights, _ in told})
    if len(sizes) > 1 or any(size % 1 for size in sizes):
        raise ArtifactError(
            "Intents of a feature table have different lengths.",
            expected="one embedder for all rows",
            found=", ".join(f"{size:g}" for size in sizes[:5]),
            fix="make the features again",
        )
    dimension = int(sizes[0]) if sizes else 0
    codes, given = np.zeros((len(table), most, dimension), np.int8), np.zeros((len(table), most), np.float32)
    named = np.full((len(table), most, depth), None, dtype=object)
    for row, stored, weights, levels in told:
        kept = min(len(weights), most)
        codes[row, :kept], given[row, :kept] = stored.reshape(-1, dimension)[:kept], weights[:kept]
        for place, said in enumerate(levels[:kept]):
            named[row, place, : len(said)] = [level or None for level in said[:depth]]
    total = given.sum(axis=1, keepdims=True)
    return IntentRows(directions(codes), np.divide(given, total, out=np.zeros_like(given), where=total > 0), named)
