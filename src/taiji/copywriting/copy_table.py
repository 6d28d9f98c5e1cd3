"""Table of copies: every candidate with its text, the reasons why it is rejected, its scores, and the probability with
which it is sent."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import polars as pl

from taiji.copywriting.copy_categories import CopyPrompt
from taiji.copywriting.copy_checks import CopyChecks, near_duplicates
from taiji.copywriting.untrusted_text import cleaned
from taiji.core.artifacts import value_hash
from taiji.reasoning.item_knowledge import Said

if TYPE_CHECKING:
    from taiji.alignment.text_reward_model import TextRewardModel
    from taiji.copywriting.settings import CopyLimits

SCHEMA: dict[str, pl.DataType] = {
    "item_id": pl.String(),
    "category": pl.String(),
    "sample": pl.Int64(),
    "copy": pl.String(),
    "said": pl.String(),
    "reasons": pl.String(),
    "quality": pl.Float64(),
    "prior": pl.Float64(),
    "length": pl.Float64(),
    "score": pl.Float64(),
    "propensity": pl.Float64(),
    "chosen": pl.Boolean(),
    "reward_model": pl.String(),
    "writer": pl.String(),
    "asked": pl.String(),
    "as_of": pl.Int64(),
    "prompt_tokens": pl.Int64(),
    "completion_tokens": pl.Int64(),
}
"""Columns of the table, which has one row per candidate.

``said`` is the candidate's text, and ``reasons`` are the reasons to reject it, separated by commas. ``copy`` is the
same text if it may be sent, and null if it is rejected. ``score`` is the sum of ``quality`` (of the text, relative to
its category and length), ``prior`` (of the category) and ``length``, or null without a reward model. ``propensity`` is
the probability with which the copy is sent for its item (the propensities of an item sum to 1); ``chosen`` marks the
copy that was drawn. ``asked`` is the hash of writer and prompt, and ``as_of`` the time (microseconds) before which the
evidence was known. ``prompt_tokens`` and ``completion_tokens`` count the tokens of the request and of the reply that
contains the text.
"""
WRITTEN = (
    "item_id",
    "category",
    "sample",
    "said",
    "ended",
    "writer",
    "asked",
    "as_of",
    "prompt_tokens",
    "completion_tokens",
)
"""Columns of the writer's output, before the checks."""


def written_rows(prompts: Sequence[CopyPrompt], said: Sequence[Sequence[Said]], version: str) -> pl.DataFrame:
    """Return the writer's output as rows of :data:`WRITTEN`. The texts are cleaned first, so that the checked text is
    the one that is sent."""
    rows = [
        (
            prompt.evidence.item_id, prompt.category.name, sample, " ".join(cleaned(one.text).split()), one.ended, version, asked_hash(prompt, version),
            prompt.evidence.as_of, one.prompt_tokens, one.completion_tokens,
        )
        for prompt, copies in zip(prompts, said)
        for sample, one in enumerate(copies)
    ]  # fmt: skip
    kinds = {**SCHEMA, "ended": pl.String()}
    return pl.DataFrame(rows, schema={name: kinds[name] for name in WRITTEN}, orient="row")


def asked_hash(prompt: CopyPrompt, version: str) -> str:
    """Return the hash of a prompt and its writer."""
    given = [prompt.messages, prompt.prefill, list(prompt.category.examples), prompt.evidence.title]
    return value_hash([version, *given])[:32]


def checked_rows(written: pl.DataFrame, prompts: Sequence[CopyPrompt], limits: CopyLimits) -> pl.DataFrame:
    """Return rows of :data:`SCHEMA`, checked against the evidence in their prompts, without scores and choice."""
    checks = CopyChecks(limits)
    evidence = {prompt.evidence.item_id: prompt.evidence for prompt in prompts}
    reasons = [
        ", ".join(checks.reasons(said, evidence[item])) if said else ended if ended != "whole" else "empty"
        for item, said, ended in written.select("item_id", "said", "ended").iter_rows()
    ]
    table = written.with_columns(reasons=pl.Series(reasons, dtype=pl.String)).with_row_index("place")
    usable = table.filter(pl.col("reasons") == "")
    again = [
        place
        for (item,), group in usable.group_by("item_id", maintain_order=True)
        for place, twice in zip(
            group["place"], near_duplicates(group["said"].to_list(), limits.duplicate, evidence[str(item)].title)
        )
        if twice
    ]
    marked = pl.when(pl.col("place").is_in(again)).then(pl.lit("duplicate")).otherwise("reasons")
    table = table.with_columns(reasons=marked).with_columns(copy=pl.when(pl.col("reasons") == "").then("said"))
    empty = [pl.lit(None, kind).alias(name) for name, kind in SCHEMA.items() if name not in table.columns]
    return table.with_columns(empty).select(pl.col(name).cast(kind) for name, kind in SCHEMA.items())


def scored_rows(table: pl.DataFrame, model: TextRewardModel | None) -> pl.DataFrame:
    """Return the table with the scores of the copies that may be sent. Without a model, return it unchanged."""
    usable = table["copy"].is_not_null().to_numpy()
    if model is None or not usable.any():
        return table
    rows = table.filter(pl.col("copy").is_not_null())
    found = model.scores(rows["copy"].to_list(), rows["category"].to_list())
    parts = {"quality": found.quality, "prior": found.prior, "length": found.length, "score": found.total}
    columns = []
    for name, values in parts.items():
        column = np.full(len(table), np.nan)
        column[usable] = values
        columns.append(pl.Series(name, column).fill_nan(None))
    return table.with_columns(*columns, reward_model=pl.when(pl.col("copy").is_not_null()).then(pl.lit(model.version)))


def chosen_rows(table: pl.DataFrame, exploration: float, seed: int) -> pl.DataFrame:
    """Return the table with ``propensity`` and ``chosen``: one copy is drawn for each item.

    The best copy by ``score`` gets the probability 1 − ``exploration``. In addition, each copy, including the best,
    gets an equal share of ``exploration``. Without scores, all copies have the same probability. The random number of
    the draw depends only on the seed and the item.
    """
    propensity, chosen = np.full(len(table), np.nan), np.zeros(len(table), dtype=bool)
    rows = table.with_row_index("place").filter(pl.col("copy").is_not_null())
    for (item,), group in rows.group_by("item_id", maintain_order=True):
        places, score = group["place"].to_numpy(), group["score"].to_numpy()
        chances = choice_chances(score, exploration)
        propensity[places] = chances
        draw = np.random.default_rng(int(value_hash([seed, item])[:16], 16)).random()
        chosen[places[min(int((chances.cumsum() <= draw).sum()), len(places) - 1)]] = True
    return table.with_columns(propensity=pl.Series(propensity).fill_nan(None), chosen=pl.Series(chosen))


def choice_chances(scores: np.ndarray, exploration: float) -> np.ndarray:
    """Return the probabilities (N,) of N copies with the given scores.

    If a score is unknown (NaN), all probabilities are equal.
    """
    values = np.asarray(scores, dtype=np.float64)
    even = np.full(len(values), 1.0 / len(values))
    if np.isnan(values).any():
        return even
    best = np.zeros(len(values))
    best[values.argmax()] = 1.0
    return np.asarray((1.0 - exploration) * best + exploration * even)
