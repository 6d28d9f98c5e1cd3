"""Stage `alignment`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from taiji.core.file_state import State, named_files
from taiji.pipeline.amounts import Amount, aligned_prompts
from taiji.pipeline.stage import LANGUAGE, PREPARED_STAGES, Stage

if TYPE_CHECKING:
    from taiji.alignment.settings import Weighting
    from taiji.config import Config
    from taiji.pipeline.amounts import Log
    from taiji.pipeline.engine import Context


class Alignment(Stage):
    """Stage that aligns the fine-tuned model to the semantic and the preference reward.

    Args:
        weighting: rule for weighting the rewards; None uses the configured one.
    """

    name = "alignment"
    summary = "Align the model to both rewards with GRPO and adaptive weights (POPO)."
    needs = (*PREPARED_STAGES, "sft", "reward_table")
    settings = ("alignment", "embedder", *LANGUAGE)
    distributed = True

    def __init__(self, weighting: Weighting | None = None) -> None:
        self.weighting = weighting
        self.variant = weighting or ""

    def configured(self, config: Config) -> Config:
        """Return the configuration with the weighting rule of this stage."""
        if self.weighting is None:
            return config
        alignment = config.alignment.model_copy(update={"weighting": self.weighting})
        return config.model_copy(update={"alignment": alignment})

    def outside(self, config: Config) -> State:
        """Return the state of the prompt-template files, and of the embedder if it is a folder."""
        return named_files(config.reasoning.prompts.templates, config.embedder.name)

    def cost(self, config: Config, log: Log) -> Amount:
        """Return the number of tokens that the rollouts generate, and of those on which the model is trained."""
        generations, aligned = config.alignment.generations, aligned_prompts(config, log)
        return Amount(
            aligned * generations,
            0,
            aligned * generations * log.answer_tokens,
            aligned * (log.student_tokens + generations * log.answer_tokens),
            language=True,
            models=1,
        )

    def run(self, context: Context) -> dict[str, Any]:
        """Align the model, then record the item to which each rollout was grounded."""
        import polars as pl

        from taiji.alignment import align
        from taiji.alignment.reward_table import RewardTable
        from taiji.alignment.rewards import Answers, ground_rollouts, preference_reward, semantic_reward
        from taiji.alignment.rollouts import FILE as ROLLOUTS
        from taiji.alignment.set_rewards import SetAnswers, ground_sets, set_preference_reward, set_semantic_reward
        from taiji.core.artifacts import write_parquet
        from taiji.language.embed import load_embedder
        from taiji.language.processes import first_process
        from taiji.pipeline.run_data import load_examples, stored
        from taiji.pipeline.run_models import load_model
        from taiji.reasoning.prompts import opened, student_prompts

        config, dataset, lm = context.config, stored(context), load_model(context, "sft")
        examples = load_examples(context, "alignment")
        prompts = student_prompts(dataset, examples, config.reasoning.prompts, lm.tokenizer)
        prompts = prompts.with_columns(prompt=pl.Series([opened(text) for text in prompts["prompt"]], dtype=pl.String))
        built = RewardTable.load(context.input("reward_table") / "table")
        embedder, asked = load_embedder(config.embedder.name, config.embedder.device), config.reasoning.prompts
        answers, sets = Answers(embedder), SetAnswers(embedder, asked.most)
        if asked.answer == "set":
            rewards = {"semantic": set_semantic_reward(built, sets), "preference": set_preference_reward(built, sets)}
        else:
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
            return {}  # only the first process has written anything
        rollouts = pl.read_parquet(context.folder / ROLLOUTS)
        scored = rollouts["example"].to_list(), rollouts["completion"].to_list()
        if asked.answer == "set":
            well, grounded, items = ground_sets(built, sets, *scored)
            rollouts = rollouts.with_columns(items=pl.Series(items, dtype=pl.List(pl.UInt32)))
        else:
            well, grounded = ground_rollouts(built, answers, *scored)
        where = pl.Series(well)
        rollouts = rollouts.with_columns(
            item=pl.when(where).then(pl.Series(grounded.items.astype("uint32"))),
            similarity=pl.when(where).then(pl.Series(grounded.similarity)),
        )
        write_parquet(context.folder / ROLLOUTS, rollouts)
        return {"prompts": len(examples), "rule": config.alignment.weighting}
