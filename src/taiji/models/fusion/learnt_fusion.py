"""Base class of fusions that are fitted to logged slates, and the rows to which they are fitted."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from copy import copy
from dataclasses import dataclass
from typing import Any, ClassVar, Self

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from taiji.core.component import Predictions, Requests
from taiji.core.errors import ConfigError, InputError
from taiji.core.settings import Settings as Base
from taiji.data.dataset import Dataset
from taiji.data.user_subset import UserSubset
from taiji.models.fusion.weighted import weighed
from taiji.models.learnt_component import LearntComponent

Array = NDArray[Any]
CANDIDATES = "candidates"
"""Column of the requests with the candidates' dense item ids (B, M). A cascade sets it for components that correct
predictions (:meth:`~taiji.core.component.Debiaser.adjust`) and for fusions."""


@dataclass(frozen=True, eq=False)
class FusionRows:
    """Logged slates with predictions and outcomes.

    Attributes:
        requests: B requests; a column of shape (B, M) has one value per candidate.
        predictions: (B, M) by task, NaN at padding, from a ranker that was not trained on these slates.
        labels: (B, M) by task, NaN where a label is unknown.
    """

    requests: Requests
    predictions: Predictions
    labels: Mapping[str, Array]

    def take(self, rows: Array | slice) -> FusionRows:
        """Return the slates at ``rows``."""
        predictions = {task: values[rows] for task, values in self.predictions.items()}
        return FusionRows(self.requests.take(rows), predictions, {t: v[rows] for t, v in self.labels.items()})


class FusionSettings(Base):
    """Settings that all fitted fusions share."""

    weights: dict[str, float] = Field(default={"click": 1.0}, min_length=1)
    """Weight of each prediction, above 0. Depending on the fusion, it weights the prediction in the score, or the label
    of the same name in training."""


class LearntFusion(LearntComponent):
    """Fusion that is fitted to :class:`FusionRows`. A subclass implements :meth:`learn` and :meth:`score`."""

    Settings: ClassVar[type[Base]] = FusionSettings
    settings: FusionSettings

    def __init__(self, settings: FusionSettings | None = None) -> None:
        super().__init__(settings)
        wrong = {task: weight for task, weight in self.settings.weights.items() if not weight > 0}
        if wrong:
            raise ConfigError(
                "A fitted fusion must be increasing in every prediction.",
                where="weights",
                expected="numbers above 0",
                found=str(wrong),
                fix="omit the task, or pass its complement as a prediction",
            )

    usual_columns: Array
    """Usual values (C,) of the conditioning columns, set by :meth:`learn_columns` if the fusion has such columns.

    Conditioning columns are columns of a request or its user that affect the score in addition to the predictions.
    """

    @property
    def tasks(self) -> tuple[str, ...]:
        """Names of the fused predictions, in the order of the weights."""
        return tuple(self.settings.weights)

    @abstractmethod
    def learn(self, rows: FusionRows, seed: int) -> None:
        """Fit the fusion to slates that have the predictions of all :attr:`tasks`."""

    @abstractmethod
    def score(self, values: Array, requests: Requests) -> Array:
        """Return scores (B, M) from finite predictions (B, M, K) of the K :attr:`tasks`, in their order."""

    def fit(self, rows: FusionRows, dataset: Dataset | None = None, *, seed: int = 0) -> Self:
        """Fit the fusion. The same seed gives the same weights.

        Args:
            rows: slates with predictions and labels.
            dataset: dataset in which columns of items and users are looked up; None if the requests have all columns.
            seed: random seed of the fit.

        Raises:
            InputError: a task has no prediction, or all slates are empty.
        """
        self.dataset = dataset
        if not np.isfinite(self.stacked(rows.predictions)).all(axis=2).any():
            raise InputError(
                "There are no slates to fit the fusion to.", where="rows", found="no candidate with predictions"
            )
        self.learn(rows, seed)
        return self

    def fuse(self, predictions: Predictions, requests: Requests) -> Array:
        """Return scores (B, M); NaN for candidates with a NaN prediction (padding)."""
        values = self.stacked(predictions)
        known = np.asarray(np.isfinite(values).all(axis=2))
        return np.where(known, self.score(np.where(known[..., None], values, 0.0), requests), np.nan)

    def stacked(self, predictions: Predictions) -> Array:
        """Return the predictions of :attr:`tasks`, (B, M, K)."""
        return np.stack(weighed(predictions, self.tasks), axis=2)

    def reward(self, rows: FusionRows) -> Array:
        """Return Σ weight · label over the tasks that have a label, (B, M); NaN where one of the labels is unknown.

        Raises:
            InputError: no task has a label, or no candidate has known labels.
        """
        parts = [weight * rows.labels[task] for task, weight in self.settings.weights.items() if task in rows.labels]
        if not parts:
            raise InputError(
                "No weighted prediction has a label to fit to.",
                where="weights",
                expected=f"one of {', '.join(rows.labels) or '(no labels)'}",
                found=", ".join(self.tasks),
            )
        total = np.asarray(sum(parts), np.float64)
        if not np.isfinite(total).any():
            raise InputError(
                "No label of the weighted predictions is known.", where="rows", found="only missing labels"
            )
        return total

    def bound_to(self, dataset: Dataset) -> Self:
        """Return a copy that looks up users and items in another dataset, such as a service's dataset of live users."""
        made = copy(self)
        made.dataset = dataset
        return made

    def learn_columns(self, names: Sequence[str], requests: Requests) -> None:
        """Store the usual values of the conditioning columns, which later replace missing values."""
        self.usual_columns = usual_values(request_numbers(names, requests, self.dataset))

    def known_columns(self, names: Sequence[str], requests: Requests) -> Array:
        """Return the conditioning columns of the requests (B, C), with usual values in place of missing ones."""
        return filled(request_numbers(names, requests, self.dataset), self.usual_columns)

    def known_users(self, requests: Requests) -> Array:
        """Return the users' dense ids (B,) in the dataset of the fit; :data:`~taiji.data.user_subset.NEW` for users who
        are not in it."""
        return self.dataset.numbers[requests.user] if isinstance(self.dataset, UserSubset) else requests.user


def request_numbers(names: Sequence[str], requests: Requests, dataset: Dataset | None) -> Array:
    """Return conditioning columns of requests or users as numbers (B, C), NaN where they are missing.

    Raises:
        InputError: a column is found neither in the requests, with one value per request, nor in the table of users.
    """
    shape, found = (len(requests), 1), []
    for name in names:
        if np.asarray(requests.columns.get(name, ())).ndim > 1:
            raise _unknown_column(name, "a column with one value per request", "one value per candidate")
        found.append(as_numbers(_of_request(name, requests, shape, dataset)[:, 0]))
    return np.stack(found, axis=1) if found else np.zeros((len(requests), 0))


def as_numbers(values: Array) -> Array:
    """Return a column as float64, NaN where it is missing."""
    return np.asarray(values, dtype=np.float64)


def usual_values(columns: Array) -> Array:
    """Return the mean of the finite values of each column (B, C), as (C,); 0 for a column that has none."""
    there = np.isfinite(columns)
    return np.asarray(np.where(there, columns, 0.0).sum(axis=0) / np.maximum(there.sum(axis=0), 1))


def filled(columns: Array, instead: Array) -> Array:
    """Return columns (B, C) in which values that are not finite are replaced by ``instead`` (C,)."""
    return np.where(np.isfinite(columns), columns, instead)


def circumstances(name: str, requests: Requests, shape: tuple[int, int], dataset: Dataset | None) -> Array:
    """Return the value of a conditioning column for each candidate, (B, M).

    The column is looked up first in the requests, where it has shape (B,) or (B, M), then in the dataset's items, and
    then in its users. In a service, a column that is found nowhere counts as missing, and all values are None.

    Raises:
        InputError: no column has this name, or only the items have it and the requests do not have the candidates.
    """
    of_items = dataset is not None and name in dataset.items.columns and CANDIDATES in requests.columns
    if dataset is None or not of_items or name in requests.columns:
        return _of_request(name, requests, shape, dataset)
    return dataset.items[name].to_numpy()[np.maximum(requests.columns[CANDIDATES], 0)]


def _of_request(name: str, requests: Requests, shape: tuple[int, int], dataset: Dataset | None) -> Array:
    """Return a column of the requests or of their users as in :func:`circumstances`, (B, M)."""
    if name in requests.columns:
        values = np.asarray(requests.columns[name])
        return np.broadcast_to(values[:, None] if values.ndim == 1 else values, shape)
    if dataset is not None and name in dataset.users.columns:
        return np.broadcast_to(dataset.users[name].to_numpy()[requests.user][:, None], shape)
    if isinstance(dataset, UserSubset):
        return np.full(shape, None)
    known = [*requests.columns, *(() if dataset is None else dataset.users.columns)]
    if dataset is not None and name in dataset.items.columns:
        found = "a column of the items, which cannot be looked up for requests without the column candidates"
    else:
        found = "no column of this name"
    raise _unknown_column(name, f"a column of the requests or users ({', '.join(known) or 'there is none'})", found)


def _unknown_column(name: str, expected: str, found: str) -> InputError:
    return InputError("A conditioning column cannot be read.", where=name, expected=expected, found=found)
