"""Stage `reward`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from taiji.core.file_state import State, named_files
from taiji.pipeline.amounts import Amount, trained_rows
from taiji.pipeline.ranker_tables import ranker_tables
from taiji.pipeline.stage import PREPARED_STAGES, Stage

if TYPE_CHECKING:
    from taiji.config import Config
    from taiji.pipeline.amounts import Log
    from taiji.pipeline.engine import Context


class Reward(Stage):
    """Stage that trains the reward ranker on the earliest period only. Its scores are rewards in alignment."""

    name = "reward"
    summary = "Train the ranker whose scores are rewards in alignment, on the earliest period."
    needs = PREPARED_STAGES
    settings = ("ranking", "own_ranker.reward")

    def outside(self, config: Config) -> State:
        """Return the state of the files of ``own_ranker.reward``, and of the files that the trained ranker reads."""
        return [*named_files(config.own_ranker.reward), *ranker_tables(config)]

    def cost(self, config: Config, log: Log) -> Amount:
        """Return the number of training rows."""
        return Amount(trained_rows(log.exposures(0), config))

    def run(self, context: Context) -> dict[str, Any]:
        """Train the ranker, unless ``own_ranker.reward`` names one."""
        from taiji.data import exposures
        from taiji.pipeline.run_data import load, load_split
        from taiji.pipeline.run_rankers import train

        if context.config.own_ranker.reward:
            return {"ranker": context.config.own_ranker.reward}
        dataset = load(context)
        rows = exposures(dataset, load_split(context), "reward")
        train(context, dataset, rows, "ranker")
        return {"exposures": len(rows)}
