"""Completions of a run's models and embeddings of texts, over partitions."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

import numpy as np
import polars as pl

from taiji.language.embed import load_embedder
from taiji.language.generate import write
from taiji.language.vllm_engine import with_engine
from taiji.pipeline.run_data import stored
from taiji.pipeline.run_models import load_model
from taiji.reasoning.prompts import opened, student_prompts

if TYPE_CHECKING:
    from taiji.pipeline.engine import Context
    from taiji.pipeline.partitions import Work

TEXTS_PER_PARTITION = 4096
"""Texts per partition of embedding."""


def complete(context: Context, rows: pl.DataFrame, which: str) -> pl.DataFrame:
    """Return one completion per row (`example`, `user`, `as_of`), and whether the length limit cut it."""
    return context.over(
        rows, partial(_open_answering, context, which), f"{which} model answers", "prompts", folder=which
    )


def _open_answering(context: Context, which: str) -> Work:
    config, dataset = context.config, stored(context)
    lm = with_engine(load_model(context, which), config.language)

    def work(part: pl.DataFrame) -> pl.DataFrame:
        prompts = student_prompts(dataset, part, config.reasoning.prompts, lm.tokenizer)
        texts = write(
            lm, [opened(prompt) for prompt in prompts["prompt"]], settings=config.generation, seed=config.seed
        )
        return part.select("example", "user", "as_of").with_columns(
            prompts["kept"],
            prompts["dropped"],
            completion=pl.Series([text[0].text for text in texts], dtype=pl.String),
            cut=pl.Series([text[0].cut for text in texts], dtype=pl.Boolean),
        )

    return work


def embed(context: Context, texts: list[str], what: str) -> np.ndarray:
    """Return (N, d) float32 embeddings of texts."""
    rows = pl.DataFrame({"text": pl.Series(texts, dtype=pl.String)})
    vectors = context.over(
        rows,
        partial(_open_embedding, context),
        f"Embedding {what}",
        "texts",
        folder=f"embed-{what}",
        size=TEXTS_PER_PARTITION,
        here=len(texts) <= TEXTS_PER_PARTITION,
    )
    return vectors["vector"].to_numpy()


def _open_embedding(context: Context) -> Work:
    embedder = load_embedder(context.config.embedder.name, context.config.embedder.device)
    kind = pl.Array(pl.Float32, embedder.dimension)
    return lambda part: pl.DataFrame({"vector": pl.Series(embedder.encode(part["text"].to_list()), dtype=kind)})
