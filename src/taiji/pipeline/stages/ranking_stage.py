"""Stage `ranking`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from taiji.core.file_state import State
from taiji.core.progress import purpose
from taiji.pipeline.amounts import Amount, featured_users, trained_rows
from taiji.pipeline.names import ARMS
from taiji.pipeline.ranker_tables import ranker_tables
from taiji.pipeline.stage import PREPARED_STAGES, Stage

if TYPE_CHECKING:
    from taiji.config import Config
    from taiji.pipeline.amounts import Log
    from taiji.pipeline.engine import Context


class Ranking(Stage):
    """Stage that trains one ranker per feature table. These rankers, and the ranker without features, score the test
    exposures of users who have features."""

    name = "ranking"
    summary = "Train the rankers with features and score the test exposures."
    needs = (*PREPARED_STAGES, "evaluation_ranker", "features")
    settings = ("ranking", "features")

    def outside(self, config: Config) -> State:
        """Return the state of the files that the ranker reads."""
        return ranker_tables(config)

    def cost(self, config: Config, log: Log) -> Amount:
        """Return the number of training rows and of scored rows."""
        share = featured_users(config, log) / log.users
        return Amount(2 * trained_rows(log.exposures(2), config) + 3 * log.exposures(3) * share)

    def run(self, context: Context) -> dict[str, Any]:
        """Join the features, train the rankers, and predict."""
        import polars as pl

        from taiji.core.artifacts import write_json, write_parquet
        from taiji.data import exposures
        from taiji.data.intent_rows import INTENTS
        from taiji.features.feature_table import feature_metrics, join_features
        from taiji.features.student import STUDENT, IntentStudent, filled
        from taiji.pipeline.run_data import load, load_split
        from taiji.pipeline.run_rankers import load_trained, settings_of, train

        dataset, split = load(context), load_split(context)
        before, test = exposures(dataset, split, "ranker"), exposures(dataset, split, "test")
        tables = {arm: pl.read_parquet(context.input("features") / f"{arm}.parquet") for arm in ARMS}
        columns = context.config.features.columns
        coverage = {
            arm: feature_metrics(join_features(test, table, ("ids", "neighbour_items")))
            for arm, table in tables.items()
        }
        write_json(context.folder / "coverage.json", coverage)
        # All arms are evaluated on the same population: the users with features.
        test = test.join(tables["taiji"].select("user").unique(), on="user", how="semi", maintain_order="left")
        write_parquet(context.folder / "exposures.parquet", test)
        base = load_trained(context, "evaluation_ranker", dataset)
        settings = settings_of(base, context.config.ranking)
        predictions = {"none": base.predict(test)}
        folder = context.input("features") / STUDENT
        student = IntentStudent.load(folder) if folder.is_dir() else None

        def joined(rows: pl.DataFrame, table: pl.DataFrame) -> pl.DataFrame:
            own = tuple(name for name in INTENTS if name in table.columns)
            found = join_features(rows, table, (*columns, *own))
            return filled(found, dataset, student, context.config.features.oldest_s) if own and student else found

        for arm, table in tables.items():
            with purpose(f"with features {arm}"):
                ranker = train(context, dataset, joined(before, table), arm, settings)
            predictions[arm] = ranker.predict(joined(test, table))
        for arm, frame in predictions.items():
            write_parquet(context.folder / f"predictions-{arm}.parquet", frame)
        return {"train": len(before), "test": len(test), "arms": list(predictions)}
