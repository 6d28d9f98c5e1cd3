"""Stage `reward_table`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from taiji.core.file_state import State, named_files
from taiji.pipeline.amounts import Amount, prompt_share
from taiji.pipeline.stage import PREPARED_STAGES, Stage

if TYPE_CHECKING:
    from taiji.config import Config
    from taiji.pipeline.amounts import Log
    from taiji.pipeline.engine import Context


class RewardTable(Stage):
    """Stage that chooses candidate items for each alignment prompt and precomputes their rewards.

    Reinforcement learning looks the rewards up in the resulting reward table.
    """

    name = "reward_table"
    summary = "Precompute candidate items and their rewards for every alignment prompt."
    needs = (*PREPARED_STAGES, "reward")
    settings = (
        "alignment.reward_table",
        "embedder",
        "reasoning.prompts.title_characters",
        "own_ranker.reward",
        "own_ranker.external",
    )

    def outside(self, config: Config) -> State:
        """Return the state of the files of ``own_ranker.reward``, and of the embedder if it is a folder."""
        return named_files(config.own_ranker.reward, config.embedder.name)

    def cost(self, config: Config, log: Log) -> Amount:
        """Return the number of alignment prompts, however often training repeats them."""
        return Amount(config.size.alignment_prompts * prompt_share(config, log))

    def run(self, context: Context) -> dict[str, Any]:
        """Choose the candidates and compute their rewards."""
        from taiji.alignment import build_reward_table
        from taiji.language.embed import load_embedder
        from taiji.pipeline.run_data import load, load_examples, load_split
        from taiji.pipeline.run_rankers import reward_ranker

        config, dataset = context.config, load(context)
        examples = load_examples(context, "alignment")
        built = build_reward_table(
            dataset,
            load_split(context),
            examples,
            reward_ranker(context, dataset),
            load_embedder(config.embedder.name, config.embedder.device),
            config.alignment.reward_table,
            config.seed,
            title_characters=config.reasoning.prompts.title_characters,
        )
        built.save(context.folder / "table")
        return {"prompts": len(examples), "pairs": len(built.rows)}
