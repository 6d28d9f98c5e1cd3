"""Stage `evaluation_ranker`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from taiji.core.file_state import State
from taiji.pipeline.amounts import Amount, trained_rows
from taiji.pipeline.ranker_tables import ranker_tables
from taiji.pipeline.stage import PREPARED_STAGES, Stage

if TYPE_CHECKING:
    from taiji.config import Config
    from taiji.pipeline.amounts import Log
    from taiji.pipeline.engine import Context


class EvaluationRanker(Stage):
    """Stage that trains the ranker without features on the ranker period. This ranker also evaluates the answers of the
    language models."""

    name = "evaluation_ranker"
    summary = "Train the ranker without features; it also evaluates the models."
    needs = PREPARED_STAGES
    settings = ("ranking",)

    def outside(self, config: Config) -> State:
        """Return the state of the files that the ranker reads."""
        return ranker_tables(config)

    def cost(self, config: Config, log: Log) -> Amount:
        """Return the number of training rows."""
        return Amount(trained_rows(log.exposures(2), config))

    def run(self, context: Context) -> dict[str, Any]:
        """Train the ranker."""
        from taiji.data import exposures
        from taiji.pipeline.run_data import load, load_split
        from taiji.pipeline.run_rankers import train

        dataset = load(context)
        rows = exposures(dataset, load_split(context), "ranker")
        train(context, dataset, rows, "ranker")
        return {"exposures": len(rows)}
