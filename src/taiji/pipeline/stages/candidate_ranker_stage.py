"""Stage `candidate_ranker`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from taiji.pipeline.amounts import Amount, trained_rows
from taiji.pipeline.ranker_tables import recommender_tables
from taiji.pipeline.stage import Stage

if TYPE_CHECKING:
    import polars as pl

    from taiji.config import Config
    from taiji.data import Dataset
    from taiji.pipeline.amounts import Log
    from taiji.pipeline.engine import Context


class CandidateRanker(Stage):
    """Stage that trains the candidate ranker on the exposures of all periods before the test.

    If ``recommend.features`` is set, the stage stores the features next to the ranker: ``features.parquet`` (with the
    user and item ids of this log) and ``features.json``.
    """

    name = "candidate_ranker"
    summary = "Train the candidate ranker on all exposures before the test period."
    needs: tuple[str, ...] = ("data",)
    settings = ("ranking", "split", "recommend.features")

    def outside(self, config: Config) -> object:
        """Return the state of the features in ``recommend.features``, and of the files that the ranker reads."""
        return recommender_tables(config) or None

    def cost(self, config: Config, log: Log) -> Amount:
        """Return the number of training rows."""
        return Amount(trained_rows(sum(log.exposures(period) for period in range(3)), config))

    def run(self, context: Context) -> dict[str, Any]:
        """Train the ranker."""
        from taiji.pipeline.run_data import load
        from taiji.pipeline.run_rankers import train

        dataset = load(context)
        rows = self.training_rows(context, dataset)
        train(context, dataset, rows, "ranker")
        return {"exposures": len(rows)}

    def training_rows(self, context: Context, dataset: Dataset) -> pl.DataFrame:
        """Return the exposures before the test period, joined with the features of ``recommend.features``, if set."""
        from taiji.data import Split, exposures, time_split
        from taiji.pipeline.run_features import joined_to

        first, _, _, test, end = time_split(dataset, context.config.split).bounds
        # A single period up to the test period, so that labels that had not matured by then are unknown.
        rows = exposures(dataset, Split((first, first, first, test, end)), "ranker")
        if context.config.recommend.features is not None:
            rows = joined_to(context, dataset, rows, test)
        return rows
