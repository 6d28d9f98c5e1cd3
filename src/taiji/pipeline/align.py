"""Stages `environment` and `alignment`: rewards are computed beforehand, reinforcement learning looks them up."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import polars as pl

from taiji.alignment import align, build_reward_table
from taiji.alignment.reward_table import RewardTable
from taiji.alignment.rewards import Answers, ground_rollouts, preference_reward, semantic_reward
from taiji.alignment.rollouts import FILE as ROLLOUTS
from taiji.core.artifacts import write_parquet
from taiji.language.embed import load_embedder
from taiji.language.processes import first_process
from taiji.pipeline.prepare import load, load_examples, load_split, stored
from taiji.pipeline.rank import ranker_that
from taiji.pipeline.run_models import load_model
from taiji.reasoning.prompts import opened, student_prompts

if TYPE_CHECKING:
    from taiji.pipeline.engine import Context


def environment(context: Context) -> dict[str, Any]:
    """Choose each alignment prompt's candidate items and freeze their rewards."""
    config, dataset = context.config, load(context)
    ranker = ranker_that(context, "reward", dataset)
    embedder = load_embedder(config.embedder.name)
    examples = load_examples(context, "alignment")
    built = build_reward_table(
        dataset,
        load_split(context),
        examples,
        ranker,
        embedder,
        config.alignment.environment,
        config.seed,
        title_characters=config.reasoning.prompts.title_characters,
    )
    built.save(context.folder / "environment")
    return {"prompts": len(examples), "pairs": len(built.rows)}


def alignment(context: Context) -> dict[str, Any]:
    """Align the fine-tuned model to both rewards."""
    config, dataset, lm = context.config, stored(context), load_model(context, "sft")
    examples = load_examples(context, "alignment")
    prompts = student_prompts(dataset, examples, config.reasoning.prompts, lm.tokenizer)
    prompts = prompts.with_columns(prompt=pl.Series([opened(text) for text in prompts["prompt"]], dtype=pl.String))
    built, answers = (
        RewardTable.load(context.input("environment") / "environment"),
        Answers(load_embedder(config.embedder.name)),
    )
    rewards = {"semantic": semantic_reward(built, answers), "preference": preference_reward(built, answers)}
    align(
        lm,
        prompts.select("example", "prompt"),
        rewards,
        config.alignment,
        context.folder,
        config.seed,
        scratch=context.scratch,
    )
    write_parquet(context.folder / "prompts.parquet", prompts.select("example", "kept", "dropped"))
    if not first_process():
        return {}  # only the first one has written anything
    rollouts = pl.read_parquet(context.folder / ROLLOUTS)
    well, grounded = ground_rollouts(built, answers, rollouts["example"].to_list(), rollouts["completion"].to_list())
    where = pl.Series(well)
    rollouts = rollouts.with_columns(
        item=pl.when(where).then(pl.Series(grounded.items.astype("uint32"))),
        similarity=pl.when(where).then(pl.Series(grounded.similarity)),
    )
    write_parquet(context.folder / ROLLOUTS, rollouts)
    return {"prompts": len(examples), "rule": config.alignment.weighting}
