"""Columns of intents in a feature table.

Intents are predictions of a model for a user: a few vectors with weights and predicted categories. A row has up to m
intents in descending order of weight. The weights of a row sum to 1. Each vector has its own scale and is stored as
int8; the scale is not stored, because only the direction is used.
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
"""Columns of a feature table that was made with ``reasoning.prompts.answer: set``: the concatenated vectors, the
weights and the category levels of the intents, and the embedder as ``name@version``, followed by ``+`` and the version
of the learnt intent map (:mod:`taiji.features.intent_map`) if one was applied."""
FULL_SCALE = 127


@dataclass(frozen=True)
class IntentRows:
    """Intents of many feature rows.

    Attributes:
        vectors: unit vectors, (N, m, d) float32, zero after the last intent of a row.
        weights: weights, (N, m) float32, which sum to 1 in each row, or to 0 in a row without intents.
        levels: names of the categories at each level, (N, m, depth), None where missing.
    """

    vectors: Array
    weights: Array
    levels: Array


def to_int8(vectors: Array) -> NDArray[np.int8]:
    """Quantise vectors (..., d) to int8, each scaled so that its largest absolute value is :data:`FULL_SCALE`. Zero
    vectors stay zero."""
    largest = np.abs(vectors).max(axis=-1, keepdims=True, initial=0.0)
    scaled = np.divide(vectors, largest, out=np.zeros_like(vectors, dtype=np.float64), where=largest > 0)
    return np.rint(scaled * FULL_SCALE).astype(np.int8)


def directions(stored: NDArray[np.int8]) -> NDArray[np.float32]:
    """Convert stored vectors (..., d) to unit vectors. Zero vectors stay zero."""
    values = stored.astype(np.float32)
    lengths = np.linalg.norm(values, axis=-1, keepdims=True)
    return np.divide(values, lengths, out=np.zeros_like(values), where=lengths > 0)


def intent_rows(table: pl.DataFrame, most: int, depth: int) -> IntentRows:
    """Read the columns :data:`INTENTS` of a feature table.

    Args:
        table: feature rows, or exposures joined with feature rows.
        most: largest number m of intents per row; further intents are dropped.
        depth: number of category levels.

    Raises:
        ArtifactError: the table has no intents, or its vectors have different lengths.
    """
    missing = [name for name in INTENTS if name not in table.columns]
    if missing:
        raise ArtifactError(
            "The feature table has no intents.",
            expected=f"columns {', '.join(INTENTS)}",
            found=f"no {', '.join(missing)}",
            fix="compute the features with reasoning.prompts.answer: set",
        )
    answered = [
        (row, stored.to_numpy(), weights.to_numpy(), levels.to_list())
        for row, (stored, weights, levels) in enumerate(
            zip(table["intents"], table["intent_weights"], table["intent_levels"])
        )
        if weights is not None and len(weights)
    ]
    sizes = sorted({len(stored) / len(weights) for _, stored, weights, _ in answered})
    if len(sizes) > 1 or any(size % 1 for size in sizes):
        raise ArtifactError(
            "The vectors of intents in a feature table have different lengths.",
            expected="one embedder for all rows",
            found=", ".join(f"{size:g}" for size in sizes[:5]),
            fix="compute the features again",
        )
    dimension = int(sizes[0]) if sizes else 0
    codes, given = np.zeros((len(table), most, dimension), np.int8), np.zeros((len(table), most), np.float32)
    named = np.full((len(table), most, depth), None, dtype=object)
    for row, stored, weights, levels in answered:
        kept = min(len(weights), most)
        codes[row, :kept], given[row, :kept] = stored.reshape(-1, dimension)[:kept], weights[:kept]
        for place, names in enumerate(levels[:kept]):
            named[row, place, : len(names)] = [level or None for level in names[:depth]]
    total = given.sum(axis=1, keepdims=True)
    return IntentRows(directions(codes), np.divide(given, total, out=np.zeros_like(given), where=total > 0), named)
