"""Stages `answers` and `features`: what the models say on the test prompts, and the feature tables."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
import polars as pl

from taiji.core.artifacts import write_json, write_parquet
from taiji.data import Dataset, Split, scan_exposures
from taiji.features.feature_table import fit_table
from taiji.features.history_mean import history_mean
from taiji.language.embed import load_embedder
from taiji.language.generate import generate
from taiji.language.vllm_engine import with_engine
from taiji.pipeline.names import ARMS, MODELS
from taiji.pipeline.prepare import load_examples, load_split, stored
from taiji.pipeline.run_models import load_model
from taiji.reasoning.answers import parse
from taiji.reasoning.prompts import item_lines, opened, student_prompts

if TYPE_CHECKING:
    from taiji.pipeline.engine import Context
    from taiji.pipeline.partitions import Work

TEXTS = 4096
"""Texts embedded a partition."""


def complete(context: Context, rows: pl.DataFrame, which: str) -> pl.DataFrame:
    """One completion a row (`example`, `user`, `as_of`)."""
    return context.over(
        rows, partial(_open_answering, context, which), f"{which} model answers", "prompts", folder=which
    )


def _open_answering(context: Context, which: str) -> Work:
    config, dataset = context.config, stored(context)
    lm = with_engine(load_model(context, which), config.language)

    def work(part: pl.DataFrame) -> pl.DataFrame:
        prompts = student_prompts(dataset, part, config.reasoning.prompts, lm.tokenizer)
        texts = generate(
            lm, [opened(prompt) for prompt in prompts["prompt"]], settings=config.generation, seed=config.seed
        )
        return part.select("example", "user", "as_of").with_columns(
            prompts["kept"], prompts["dropped"], completion=pl.Series([text[0] for text in texts], dtype=pl.String)
        )

    return work


def embed(context: Context, texts: list[str], what: str) -> np.ndarray:
    """(N, d) float32 embeddings of texts."""
    rows = pl.DataFrame({"text": pl.Series(texts, dtype=pl.String)})
    vectors = context.over(
        rows,
        partial(_open_embedding, context),
        f"Embedding {what}",
        "texts",
        folder=f"embed-{what}",
        size=TEXTS,
        here=len(texts) <= TEXTS,
    )
    return vectors["vector"].to_numpy()


def _open_embedding(context: Context) -> Work:
    embedder = load_embedder(context.config.embedder.name)
    kind = pl.Array(pl.Float32, embedder.dimension)
    return lambda part: pl.DataFrame({"vector": pl.Series(embedder.encode(part["text"].to_list()), dtype=kind)})


def answers(context: Context) -> dict[str, Any]:
    """Let every model answer the test prompts."""
    test = load_examples(context, "test")
    for which in MODELS:
        write_parquet(context.folder / f"{which}.parquet", complete(context, test, which))
    return {"prompts": len(test), "models": list(MODELS)}


def features(context: Context, writer: str = "aligned") -> dict[str, Any]:
    """Write the feature tables: Taiji's, from what a model (the aligned one in a run) says, and its rival without an LLM."""
    config, dataset, split = context.config, stored(context), load_split(context)
    moments = refresh_moments(dataset, split, config.examples.min_history, config.size.feature_refreshes)
    users = _choose_users(dataset, split, moments, config.size.feature_users, config.seed)
    rows = moments.filter(pl.col("user").is_in(users.implode())).with_columns(
        example=pl.format("{}@{}", "user", "as_of")
    )
    completions = complete(context, rows, writer)
    write_parquet(context.folder / "completions.parquet", completions)

    embedder = load_embedder(config.embedder.name)
    parsed = [parse(text) for text in completions["completion"]]
    said = embed(context, [answer.said for answer in parsed], "answers")
    lines = embed(context, item_lines(dataset, config.reasoning.prompts.title_characters), "items")
    mean = history_mean(dataset, rows["user"].to_numpy(), rows["as_of"].to_numpy(), lines, config.features.history_mean)

    version = load_model(context, writer).version
    metrics = {}
    for name, vectors, made_by in zip(ARMS, (mean, said), (embedder.version, version), strict=True):
        # The quantiser must not have seen the test period.
        quantizer, table = fit_table(
            dataset, rows, vectors, split.interval("test")[0], config.features, made_by, config.seed
        )
        quantizer.save(context.folder / f"{name}-quantizer")
        write_parquet(context.folder / f"{name}.parquet", table)
        metrics[name] = quantizer.metrics(vectors)
    write_json(context.folder / "quantizers.json", metrics)
    return {"users": len(users), "rows": len(rows), "well formed": sum(answer.well_formed for answer in parsed)}


def refresh_moments(dataset: Dataset, split: Split, min_history: int, refreshes: int) -> pl.DataFrame:
    """When each user gets a feature row: `user`, `as_of`, sorted.

    A period of the ranker's training and of the test has ``refreshes`` evenly spaced moments; a user's row is due at each
    of them, or as soon after as the user has ``min_history`` interactions, and only if there is something new to read.
    This is the batch form of the near-online trigger: new behaviour, not the request, causes a row.
    """
    history, parts = dataset.history, []
    users = np.flatnonzero(np.diff(history.offsets) >= min_history)
    enough = history.times[history.offsets[users] + min_history - 1] + 1
    for period in ("ranker", "test"):
        start, end = split.interval(period)
        for refresh in range(refreshes):
            grid = start + (end - start) * refresh // refreshes
            limit = start + (end - start) * (refresh + 1) // refreshes
            moments = np.maximum(enough, grid)
            due = moments < limit
            parts.append(pl.DataFrame({"user": users[due], "as_of": moments[due]}))
    rows = pl.concat(parts).sort("user", "as_of")
    seen = pl.Series(history.count_before(rows["user"].to_numpy(), rows["as_of"].to_numpy()))
    rows = rows.with_columns(seen=seen)
    fresh = (pl.col("seen") > pl.col("seen").shift(1).over("user")).fill_null(True)
    return rows.filter(fresh).select(pl.col("user").cast(pl.UInt32), pl.col("as_of").cast(pl.Int64))


def _choose_users(dataset: Dataset, split: Split, moments: pl.DataFrame, wanted: int | None, seed: int) -> pl.Series:
    """A seeded sample among the users who have a row before an exposure of the test period."""
    first = moments.group_by("user").agg(pl.col("as_of").min())
    shown = (
        scan_exposures(dataset, split, "test").group_by("user").agg(pl.col("time").max()).collect(engine="streaming")
    )
    users = first.join(shown, on="user").filter(pl.col("time") > pl.col("as_of"))["user"].sort()
    if wanted is None or wanted >= len(users):
        return users
    return users.sample(wanted, seed=seed, shuffle=True).sort()
