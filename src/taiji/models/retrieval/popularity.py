"""Popularity: what everybody, or a user's segment, interacts with; over all time, or recently."""

from __future__ import annotations

from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray
from pydantic import Field

from taiji.core.component import Requests
from taiji.core.errors import ConfigError
from taiji.data.history import History
from taiji.models.retrieval.retriever import CatalogueRetriever
from taiji.models.retrieval.settings import RetrieverSettings

Array = NDArray[Any]
DAY = 86_400_000_000
PRIOR = 10.0
"""Interactions that every segment starts with, spread as everybody's are."""


class PopularitySettings(RetrieverSettings):
    """Settings of :class:`Popularity`."""

    half_life_days: float | None = Field(default=None, gt=0)
    """Age, from the start (UTC) of the request's day, at which an interaction counts half; `null` counts all alike."""
    segment: str | None = None
    """Column of the user table; each of its values has counts of its own, beside a little of everybody's."""


class Popularity(CatalogueRetriever):
    """Score items by how many interactions they had.

    Without a half-life the counts are those of the rows that it was fitted on; with one they come from the dataset's log as
    it stood when the request's day began.
    """

    Settings = PopularitySettings
    settings: PopularitySettings

    def learn(self, history: History, seed: int, device: str | None) -> None:
        """Count interactions per segment."""
        self.facts["segments"] = sorted(set(self._values()))
        self.segments = self._numbered()
        users = np.repeat(np.arange(history.n_users), np.diff(history.offsets))
        self.counts = self._counted(users, self.codes[history.items], np.ones(len(users)))

    def weights(self) -> dict[str, Array]:
        """Return the counts (S, N)."""
        return {"counts": self.counts}

    def restore(self, weights: dict[str, Array], device: str | None) -> None:
        """Take the counts."""
        self.segments, self.counts = self._numbered(), weights["counts"]

    def scores(self, requests: Requests) -> Array:
        """Return the counts of each request's segment, mixed with everybody's."""
        if self.settings.half_life_days is None:
            return self._mixed(requests.user, self.counts)
        out = np.empty((len(requests), len(self.places)))
        days = requests.time // DAY
        for day in np.unique(days):
            rows = days == day
            out[rows] = self._mixed(requests.user[rows], self._decayed(int(day) * DAY, self.settings.half_life_days))
        return out

    def _mixed(self, users: Array, counts: Array) -> Array:
        total = counts.sum(axis=0)
        own = counts[self.segments[users]] if self.settings.segment else 0.0
        return np.broadcast_to(own + PRIOR * total / max(float(total.sum()), 1.0), (len(users), len(total))).copy()

    def _decayed(self, now: int, half_life: float) -> Array:
        """Return decayed counts (S, N) of the log's interactions strictly before ``now``."""
        history = self.dataset.history
        users = np.repeat(np.arange(history.n_users), np.diff(history.offsets))
        past = (history.times < now) & (self.codes[history.items] >= 0)
        ages = (now - history.times[past]) / (half_life * DAY)
        return self._counted(users[past], self.codes[history.items[past]], np.exp2(-ages))

    def _counted(self, users: Array, items: Array, amounts: Array) -> Array:
        """Return sums (S + 1, N); the last segment is that of values not seen in training."""
        kinds, count = len(self.facts["segments"]) + 1, len(self.places)
        return np.bincount(self.segments[users] * count + items, amounts, minlength=kinds * count).reshape(kinds, count)

    def _values(self) -> list[str]:
        """Return each user's value of the segment column, as text."""
        column, users = self.settings.segment, self.dataset.users
        if column is None:
            return [""] * len(users)
        if column not in users.columns:
            raise ConfigError(
                "The user table has no such column.",
                where="segment",
                expected=f"one of {', '.join(users.columns[2:]) or '(it has none)'}",
                found=column,
            )
        return users[column].cast(pl.String).fill_null("").to_list()

    def _numbered(self) -> Array:
        """Return each user's segment (n_users,)."""
        numbers = {name: number for number, name in enumerate(self.facts["segments"])}
        return np.array([numbers.get(value, len(numbers)) for value in self._values()], dtype=np.int64)
