"""The ranking model that a configuration chooses: trained and read again through one door.

The default model goes through :func:`taiji.models.ranking.train_ranker`; any other is a class that ``model`` names, with
``Model(settings).fit(dataset, rows, seed=…)``, ``save(folder)``, ``load(folder, dataset)``, ``predict`` and ``score``.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from taiji.core.component import find_class
from taiji.experiments.settings import RANKER_GROUP
from taiji.models.ranking.settings import RankerSettings

if TYPE_CHECKING:
    import polars as pl

    from taiji.core.settings import Settings
    from taiji.data.dataset import Dataset
    from taiji.data.statistics import NumericFeatures

BUILT_IN: str = RankerSettings.model_fields["model"].default
"""Name of the built-in model."""


class TrainedRanker(Protocol):
    """A ranker after training, whatever its model."""

    @property
    def version(self) -> str:
        """Hash of weights and settings."""

    def predict(self, exposures: pl.DataFrame) -> pl.DataFrame:
        """Return ``click`` and ``ctcvr`` in the rows' order."""

    def score(self, users: np.ndarray, items: np.ndarray, as_ofs: np.ndarray) -> np.ndarray:
        """Return the CTCVR of (user, item, time), (N,) each."""

    def save(self, folder: str | Path) -> None:
        """Write safetensors and JSON."""


def train_ranker(
    dataset: Dataset, exposures: pl.DataFrame, settings: Settings, seed: int, numeric: NumericFeatures | None = None
) -> TrainedRanker:
    """Train the model that the settings name.

    Args:
        dataset: its history and past events feed the model.
        exposures: training rows, with feature columns where there are any.
        settings: those of the model.
        seed: of initialisation, shuffling and dropout.
        numeric: statistics of the data set if built before; the built-in model takes them.
    """
    if isinstance(settings, RankerSettings) and settings.model == BUILT_IN:
        from taiji.models.ranking.train import train_ranker as train

        return train(dataset, exposures, settings, seed, numeric=numeric)
    trained: TrainedRanker = _chosen(settings)(settings).fit(dataset, exposures, seed=seed)
    return trained


def load_ranker(folder: str | Path, dataset: Dataset, settings: Settings) -> TrainedRanker:
    """Read a ranker that :func:`train_ranker` made with these settings."""
    if isinstance(settings, RankerSettings) and settings.model == BUILT_IN:
        from taiji.models.ranking.ranker import Ranker

        return Ranker.load(folder, dataset)
    loaded: TrainedRanker = _chosen(settings).load(folder, dataset)
    return loaded


def _chosen(settings: Settings) -> Any:
    """Return the class of the model; ``find_class`` does not know more of it either."""
    return find_class(str(dict(settings)["model"]), RANKER_GROUP, "ranking.model")
