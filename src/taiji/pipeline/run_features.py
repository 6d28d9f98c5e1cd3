"""Join the features of another run to the training rows of a recommender's ranker."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import polars as pl

from taiji.core.errors import ConfigError
from taiji.features.feature_table import FEATURES, feature_metrics, join_features
from taiji.features.other_run import SETTING, StoredFeatures, import_table

if TYPE_CHECKING:
    from taiji.config import Config
    from taiji.core.component import Requests
    from taiji.data import Dataset
    from taiji.pipeline.engine import Context


def feature_columns(config: Config, dataset: Dataset, test: int) -> tuple[pl.DataFrame, tuple[str, ...]]:
    """Return the feature table of ``recommend.features``, matched to this log, and its columns that have values.

    Args:
        config: configuration with ``recommend.features`` set.
        dataset: dataset of the run.
        test: start of the test period in microseconds.
    """
    assert config.recommend.features is not None
    table = import_table(config.recommend.features, dataset, test)
    return table, tuple(name for name in FEATURES if table[name].null_count() < len(table))


def joined_to(context: Context, dataset: Dataset, rows: pl.DataFrame, test: int) -> pl.DataFrame:
    """Return training rows joined with the features of their users, and store the features in the folder of the stage.

    Args:
        context: context of the stage.
        dataset: dataset of the run.
        rows: exposures before the test period.
        test: start of the test period in microseconds.

    Raises:
        ConfigError: no row has earlier features of its user, or the features do not fit this log (see
            :func:`taiji.features.other_run.import_table`).
    """
    config = context.config
    table, columns = feature_columns(config, dataset, test)
    joined = join_features(rows, table, columns)
    training = feature_metrics(joined)
    if not training["coverage"]:
        raise ConfigError(
            "No training exposure has earlier features of its user, so the ranker cannot learn from features.",
            where=f"{SETTING} = {config.recommend.features}",
            expected=f"feature rows that are available before some of the {len(rows):,} training exposures",
            found=f"{len(table):,} rows of {table['user'].n_unique():,} users of this log",
            fix=f"compute features for earlier times (size.feature_refreshes), or set {SETTING}=null",
        )
    assert config.recommend.features is not None
    about = {
        "run": Path(config.recommend.features).name,
        "model_version": table["model_version"][0],
        "quantizer_version": table["quantizer_version"][0],
        "rows": len(table),
        "users": table["user"].n_unique(),
        "training": training,
    }
    StoredFeatures(table, columns, about).save(context.folder)
    return joined


def features_used(features: StoredFeatures, requests: Requests) -> dict[str, Any]:
    """Return the provenance of the features, and the share of requests whose user has a feature row."""
    return {**features.about, "evaluation": features.metrics_of(requests)}
