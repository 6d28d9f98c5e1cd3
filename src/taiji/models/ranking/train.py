"""Training and loading of ranking models of any class."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
import polars as pl
from numpy.typing import NDArray

from taiji.core.artifacts import read_json
from taiji.core.component import find_class
from taiji.core.errors import ArtifactError, ConfigError
from taiji.data.dataset import Dataset
from taiji.models.ranking.settings import GROUP, RankerSettings

if TYPE_CHECKING:
    from taiji.core.settings import Settings


class RankingModel(Protocol):
    """Interface of a trained ranking model. Neural models extend :class:`taiji.models.ranking.ranker.Ranker`.

    A model is trained with ``Model(settings).fit(dataset, rows, seed=…)`` and loaded with
    ``Model.load(folder, dataset)``. The ``config.json`` that ``save`` writes names the class of the model as
    ``class: package.module:Class``.
    """

    @property
    def version(self) -> str:
        """Hash of the weights and settings."""

    @property
    def goal(self) -> str:
        """Name of the prediction that :meth:`score_pairs` returns."""

    def predict(self, exposures: pl.DataFrame) -> pl.DataFrame:
        """Return one column per prediction, with one row per exposure in the given order."""

    def score_pairs(self, users: NDArray[Any], items: NDArray[Any], times: NDArray[Any]) -> NDArray[np.float64]:
        """Return the prediction :attr:`goal` for dense ids of users and items, and times in microseconds, (N,) each."""

    def save(self, folder: str | Path) -> None:
        """Write the model as safetensors and JSON."""


def train_ranker(
    dataset: Dataset,
    exposures: pl.DataFrame,
    settings: Settings | None = None,
    seed: int = 0,
    **more: Any,
) -> RankingModel:
    """Train a ranking model; ``settings.model`` determines its class.

    Args:
        dataset: dataset whose history and past events the model reads.
        exposures: training rows, with label, context and feature columns.
        settings: settings of the model; by default those of the default ranker.
        seed: random seed of initialisation, shuffling and dropout.
        more: further arguments of the model's ``fit``, such as ``valid`` and ``until``.

    Returns:
        The trained model; a neural model is a :class:`taiji.models.ranking.ranker.Ranker`.

    Raises:
        ConfigError: the class cannot be found, or the settings belong to another class.
    """
    settings = settings or RankerSettings()
    made = find_class(str(dict(settings)["model"]), GROUP, "ranking.model")
    if not isinstance(settings, made.Settings):
        raise ConfigError(
            "The settings do not belong to the class of their model.",
            where="ranking.model",
            expected=made.Settings.__qualname__,
            found=f"{type(settings).__qualname__} with model = {dict(settings)['model']}",
            fix=f"use {made.__qualname__}.Settings(...)",
        )
    trained: RankingModel = made(settings).fit(dataset, exposures, seed=seed, **more)
    return trained


def load_ranker(folder: str | Path, dataset: Dataset) -> RankingModel:
    """Read a ranking model of any class, and bind it to a dataset.

    Args:
        folder: folder that the model's ``save`` wrote.
        dataset: the dataset of the training, or a later one with more users and items.

    Raises:
        ArtifactError: the folder does not name the class of the model.
        ConfigError: the class cannot be imported.
    """
    config = read_json(Path(folder) / "config.json")
    if not isinstance(config, dict) or "class" not in config:
        raise ArtifactError(
            "This folder does not contain a readable ranker.",
            where=str(folder),
            expected="config.json with `class: package.module:Class`",
            found=f"keys {', '.join(config) if isinstance(config, dict) else type(config).__name__}",
            fix="train the ranker again",
        )
    kind = find_class(config["class"], GROUP, str(folder))
    if not hasattr(kind, "load"):
        raise ConfigError(
            "The class of a saved ranker cannot read it.",
            where=str(folder),
            expected="a class method load(folder, dataset)",
            found=repr(kind),
        )
    loaded: RankingModel = kind.load(folder, dataset)
    return loaded
