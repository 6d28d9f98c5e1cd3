"""The base of fusers fitted to logged slates, and the rows to fit them to."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Self

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from taiji.core.component import Predictions, Requests
from taiji.core.errors import ConfigError, InputError
from taiji.core.settings import Settings as Base
from taiji.data.dataset import Dataset
from taiji.models.fusion.weighted import weighed
from taiji.models.learnt_component import LearntComponent

Array = NDArray[Any]
CANDIDATES = "candidates"
"""Column of the requests with the predictions' items (B, M); a cascade sets it for adjusters and fusers."""


@dataclass(frozen=True, eq=False)
class FusionRows:
    """Logged slates with predictions and outcomes.

    Attributes:
        requests: B requests; a (B, M) column belongs to the candidates.
        predictions: task to (B, M), NaN at padding; made by a ranker that did not see these rows.
        labels: task to (B, M), NaN where unknown.
    """

    requests: Requests
    predictions: Predictions
    labels: Mapping[str, Array]

    def take(self, rows: Array | slice) -> FusionRows:
        """Return the slates at ``rows``."""
        predictions = {task: values[rows] for task, values in self.predictions.items()}
        return FusionRows(self.requests.take(rows), predictions, {t: v[rows] for t, v in self.labels.items()})


class FusionSettings(Base):
    """Settings that fitted fusers share."""

    weights: dict[str, float] = Field(default={"click": 1.0}, min_length=1)
    """Weight of each prediction, above 0: in the score, or of the label of the same name in the training target."""


class LearntFusion(LearntComponent):
    """Fuser that is fitted to :class:`FusionRows`. A model implements :meth:`learn` and :meth:`score`."""

    Settings: ClassVar[type[Base]] = FusionSettings
    settings: FusionSettings

    def __init__(self, settings: FusionSettings | None = None) -> None:
        super().__init__(settings)
        wrong = {task: weight for task, weight in self.settings.weights.items() if not weight > 0}
        if wrong:
            raise ConfigError(
                "A fitted fusion rises with every prediction.",
                where="weights",
                expected="numbers above 0",
                found=str(wrong),
                fix="omit the task, or pass its complement as a prediction",
            )

    @property
    def tasks(self) -> tuple[str, ...]:
        """Predictions that are fused, in their order."""
        return tuple(self.settings.weights)

    @abstractmethod
    def learn(self, rows: FusionRows, seed: int) -> None:
        """Fit to slates, which hold the predictions of :attr:`tasks`."""

    @abstractmethod
    def score(self, values: Array, requests: Requests) -> Array:
        """Return (B, M) scores of predictions (B, M, K), finite numbers, in the order of :attr:`tasks`."""

    def fit(self, rows: FusionRows, dataset: Dataset | None = None, *, seed: int = 0) -> Self:
        """Learn; the same seed gives the same weights.

        Raises:
            InputError: a task is not predicted, or every slate is empty.
        """
        self.dataset = dataset
        if not np.isfinite(self.stacked(rows.predictions)).all(axis=2).any():
            raise InputError(
                "There are no slates to fit fusion to.", where="rows", found="no candidate with predictions"
            )
        self.learn(rows, seed)
        return self

    def fuse(self, predictions: Predictions, requests: Requests) -> Array:
        """Return (B, M) scores; NaN where a prediction is NaN (padding)."""
        values = self.stacked(predictions)
        known = np.asarray(np.isfinite(values).all(axis=2))
        return np.where(known, self.score(np.where(known[..., None], values, 0.0), requests), np.nan)

    def stacked(self, predictions: Predictions) -> Array:
        """Return (B, M, K) predictions of :attr:`tasks`."""
        return np.stack(weighed(predictions, self.tasks), axis=2)

    def reward(self, rows: FusionRows) -> Array:
        """Return Σ weight · label over the tasks with a label, (B, M); NaN where one of them is unknown.

        Raises:
            InputError: no task has a label.
        """
        parts = [weight * rows.labels[task] for task, weight in self.settings.weights.items() if task in rows.labels]
        if not parts:
            raise InputError(
                "No weighted prediction has a label to fit to.",
                where="weights",
                expected=f"one of {', '.join(rows.labels) or '(no labels)'}",
                found=", ".join(self.tasks),
            )
        return np.asarray(sum(parts))


def circumstances(name: str, requests: Requests, shape: tuple[int, int], dataset: Dataset | None) -> Array:
    """Return the value of a named circumstance of each candidate, (B, M).

    It is a column of the requests, (B,) or (B, M), else of the dataset's items, else of its users.

    Raises:
        InputError: nothing has that name.
    """
    if name in requests.columns:
        values = np.asarray(requests.columns[name])
        return np.broadcast_to(values[:, None] if values.ndim == 1 else values, shape)
    if dataset is not None and name in dataset.items.columns and CANDIDATES in requests.columns:
        return dataset.items[name].to_numpy()[np.maximum(requests.columns[CANDIDATES], 0)]
    if dataset is not None and name in dataset.users.columns:
        return np.broadcast_to(dataset.users[name].to_numpy()[requests.user][:, None], shape)
    known = [*requests.columns, *(() if dataset is None else (*dataset.items.columns, *dataset.users.columns))]
    raise InputError(
        "A circumstance is unknown.",
        where=name,
        expected=f"a column of the requests, items or users ({', '.join(known) or 'there is none'})",
        found="none of that name",
    )
