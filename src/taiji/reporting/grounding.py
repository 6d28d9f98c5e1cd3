"""Catalogue items nearest to each answer, for the inspection of single answers."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from taiji.language.embed import encode_sets
from taiji.reasoning.answers import DEEPEST, parse
from taiji.reporting.catalogue import Catalogue

if TYPE_CHECKING:
    from taiji.language.embed import Embedder

NEAREST = 5
GROUNDING_SCHEMA = {
    "example": pl.String,
    "model": pl.String,
    "place": pl.UInt8,
    "item": pl.UInt32,
    "similarity": pl.Float32,
    "ctcvr": pl.Float64,
    "target_place": pl.UInt32,
}


def ground_answers(
    catalogue: Catalogue,
    embedder: Embedder,
    examples: pl.DataFrame,
    completions: Mapping[str, Sequence[str]],
    evaluation_score: Callable[[NDArray[Any], NDArray[Any], NDArray[Any]], NDArray[Any]],
    count: int = NEAREST,
    most: int = 1,
) -> pl.DataFrame:
    """Return the catalogue items nearest to each answer (or to any intent of a set), with evaluation ranker scores.

    A malformed answer has no rows.

    Args:
        catalogue: embeddings of the items.
        embedder: embedder of the answers.
        examples: ``example, user, as_of, target``.
        completions: model → one completion per row of ``examples``.
        evaluation_score: ``(users, items, as_ofs) -> ctcvr (N,)``.
        count: number of items per answer.
        most: largest number of intents per answer.

    Returns:
        one row per answer and item: ``example``, ``model``, ``place`` (1 is nearest), ``item``, ``similarity``
        (cosine), ``ctcvr`` and ``target_place`` (rank of the true item among all items).
    """
    users, as_ofs = (examples[name].to_numpy().astype(np.int64) for name in ("user", "as_of"))
    targets, parts = examples["target"].to_numpy().astype(np.int64), [pl.DataFrame(schema=GROUNDING_SCHEMA)]
    for model, texts in completions.items():
        answers = [parse(text, DEEPEST, most) for text in texts]
        rows = np.flatnonzero([answer.well_formed for answer in answers])
        if not len(rows):
            continue
        if most > 1:
            queries = encode_sets(embedder, [[i.text for i in answers[row].intents] for row in rows], most)
        else:
            queries = embedder.encode([answers[row].text for row in rows])
        items, similarity = catalogue.nearest(queries, count)
        above = catalogue.search(queries, targets[rows]).above
        wide = items.shape[1]
        scores = evaluation_score(np.repeat(users[rows], wide), items.ravel(), np.repeat(as_ofs[rows], wide))
        frame = pl.DataFrame(
            {
                "example": np.repeat(examples["example"].to_numpy()[rows], wide),
                "model": [model] * items.size,
                "place": np.tile(np.arange(1, wide + 1), len(rows)),
                "item": items.ravel(),
                "similarity": similarity.ravel(),
                "ctcvr": np.asarray(scores, dtype=np.float64),
                "target_place": np.repeat(above + 1, wide),
            }
        )
        parts.append(frame.select(pl.col(name).cast(kind) for name, kind in GROUNDING_SCHEMA.items()))
    return pl.concat(parts)
