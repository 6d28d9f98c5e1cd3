"""Training and loading of ranking models of any kind."""

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
    """A trained ranking model. Neural ones extend :class:`taiji.models.ranking.ranker.Ranker`; others may be anything.

    It is constructed from its settings, ``Model(settings).fit(dataset, rows, seed=…)``, and loaded with ``Model.load(folder, dataset)``; the
    ``config.json`` that ``save`` writes names it as ``class: package.module:Class``.
    """

    @property
    def version(self) -> str:
        """Hash of weights and settings."""

    @property
    def goal(self) -> str:
        """The prediction that :meth:`score_pairs` returns."""

    def predict(self, exposures: pl.DataFrame) -> pl.DataFrame:
        """Return a column per prediction, in the rows' order."""

    def score_pairs(self, users: NDArray[Any], items: NDArray[Any], times: NDArray[Any]) -> NDArray[np.float64]:
        """Return the goal of (user, item, time), (N,) each."""

    def save(self, folder: str | Path) -> None:
        """Write safetensors and JSON."""


def train_ranker(
    dataset: Dataset,
    exposures: pl.DataFrame,
    settings: Settings | None = None,
    seed: int = 0,
    **more: Any,
) -> RankingModel:
    """Train the ranking model that the settings name.

    Args:
        dataset: its history and past events feed the model.
        exposures: training rows, with label, context and feature columns.
        settings: settings of the model; its key ``model`` names the class.
        seed: random seed of initialisation, shuffling and dropout.
        more: further arguments of the model's ``fit``, for instance ``valid`` and ``until``.

    Returns:
        The trained model, a :class:`taiji.models.ranking.ranker.Ranker` where it is a neural one.
    """
    settings = settings or RankerSettings()
    made = find_class(str(dict(settings)["model"]), GROUP, "ranking.model")
    if not isinstance(settings, made.Settings):
        raise ConfigError(
            "The settings are not of the class that their model expects.",
            where="ranking.model",
            expected=made.Settings.__qualname__,
            found=f"{type(settings).__qualname__} with model = {dict(settings)['model']}",
            fix=f"make {made.__qualname__}.Settings(...)",
        )
    trained: RankingModel = made(settings).fit(dataset, exposures, seed=seed, **more)
    return trained


def load_ranker(folder: str | Path, dataset: Dataset) -> RankingModel:
    """Read a ranking model of any class and bind it to a dataset, the same one or a later one with more users and items.

    Raises:
        ArtifactError: the folder does not name the model's class.
        ConfigError: the class cannot be imported here.
    """
    config = read_json(Path(folder) / "config.json")
    if not isinstance(config, dict) or "class" not in config:
        raise ArtifactError(
            "This folder is not a readable ranker.",
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
