"""Train a ranker of any model on a frame of exposures."""

from __future__ import annotations

import polars as pl

from taiji.data.dataset import Dataset
from taiji.models.ranking.ranker import Ranker, ranker_class
from taiji.models.ranking.settings import NeuralRankerSettings, RankerSettings


def train_ranker(
    dataset: Dataset,
    exposures: pl.DataFrame,
    settings: NeuralRankerSettings | None = None,
    seed: int = 0,
    valid: pl.DataFrame | None = None,
    until: int | None = None,
) -> Ranker:
    """Train the ranking model that the settings name; arguments and errors as for :meth:`taiji.models.ranking.ranker.Ranker.fit`."""
    settings = settings or RankerSettings()
    made = ranker_class(settings.model)(settings)
    return made.fit(dataset, exposures, seed=seed, valid=valid, until=until)
