"""Stage `fusion`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from taiji.core.file_state import State
from taiji.pipeline.amounts import Amount, trained_rows
from taiji.pipeline.ranker_tables import recommender_tables
from taiji.pipeline.stage import Stage

if TYPE_CHECKING:
    from taiji.config import Config
    from taiji.data import Dataset
    from taiji.models.fusion.learnt_fusion import LearntFusion
    from taiji.pipeline.amounts import Log
    from taiji.pipeline.engine import Context


class Fusion(Stage):
    """Stage that fits the fusion of predictions on the last period before the test, with a ranker trained only on
    earlier data."""

    name = "fusion"
    summary = "Fit the fusion of predictions on the last period before the test."
    needs = ("data",)
    settings = ("ranking", "split", "recommend")

    def outside(self, config: Config) -> State:
        """Return the state of the features in ``recommend.features``, and of the files that the ranker reads."""
        return recommender_tables(config)

    def cost(self, config: Config, log: Log) -> Amount:
        """Return the number of training rows of the ranker that makes the predictions."""
        return Amount(trained_rows(sum(log.exposures(period) for period in range(2)), config))

    def run(self, context: Context) -> dict[str, Any]:
        """Train the ranker on the earlier periods, predict the exposures of the last one, and fit the fusion."""
        from taiji.cascade.assembly import make_fuser
        from taiji.core.errors import InputError
        from taiji.data import Split, exposures, time_split
        from taiji.features.feature_table import join_features
        from taiji.models.fusion.learnt_fusion import LearntFusion
        from taiji.models.fusion.logged_slates import logged_slates
        from taiji.models.ranking.train import train_ranker
        from taiji.pipeline.run_data import load
        from taiji.pipeline.run_features import feature_columns
        from taiji.pipeline.run_rankers import scoring_slates

        config, dataset = context.config, load(context)
        split = time_split(dataset, config.split)
        first, _, last, test, end = split.bounds
        earlier = exposures(dataset, Split((first, first, first, last, end)), "ranker")
        shown = exposures(dataset, Split((first, first, last, test, end)), "ranker")
        if config.recommend.features is not None:
            # The candidate ranker reads these features, so the ranker used to fit the fusion must read them, too.
            features = feature_columns(config, dataset, test)
            earlier, shown = join_features(earlier, *features), join_features(shown, *features)
        trained = train_ranker(dataset, earlier, config.ranking, config.seed)
        ranker = scoring_slates(trained, "another model, or a fusion that is not fitted")
        if not len(shown):
            raise InputError(
                "There are no exposures in the period on which the fusion is fitted.",
                where="split",
                expected="exposures in the last period before the test",
                fix="increase the third share in split.fractions, or use a fusion that is not fitted",
            )
        fuser = make_fuser(config.recommend)
        assert isinstance(fuser, LearntFusion)
        rows = logged_slates(dataset, shown, ranker.predict(shown), [task.name for task in ranker.tasks])
        fuser.fit(rows, dataset, seed=config.seed).save(context.folder / "fuser")
        return {"slates": len(rows.requests), "exposures": len(shown), "version": fuser.version}


def load_fuser(context: Context, dataset: Dataset) -> LearntFusion:
    """Load the fusion that the stage has fitted."""
    from taiji.cascade.assembly import make_fuser
    from taiji.models.fusion.learnt_fusion import LearntFusion

    kind = type(make_fuser(context.config.recommend))
    assert issubclass(kind, LearntFusion)
    return kind.load(context.input("fusion") / "fuser", dataset)
