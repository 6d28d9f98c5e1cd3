"""Popularity: the most frequent items, counted for all users or per user segment, with equal or with decaying
weights."""

from __future__ import annotations

from collections import OrderedDict
from typing import Any, Self

import numpy as np
import polars as pl
from numpy.typing import NDArray
from pydantic import Field

from taiji.core.component import Requests, Slate
from taiji.core.errors import ConfigError
from taiji.data.dataset import Dataset
from taiji.data.history import History
from taiji.models.retrieval.retriever import CatalogueRetriever
from taiji.models.retrieval.settings import RetrieverSettings

Array = NDArray[Any]
DAY = 86_400_000_000
REMEMBERED = 4_000_000
"""Largest number of scores cached for days and segments; at least two days are kept."""
PRIOR = 10.0
"""Number of pseudo-interactions that smooth the counts of each segment. They are distributed over the items in
proportion to the counts of all users."""


class PopularitySettings(RetrieverSettings):
    """Settings of :class:`Popularity`."""

    half_life_days: float | None = Field(default=None, gt=0)
    """Age in days at which an interaction counts one half. Ages are measured from the start (UTC) of the request's day.
    With `null`, all interactions count equally."""
    segment: str | None = None
    """Column of the user table that defines segments. Users with the same value form a segment with its own counts,
    which are smoothed by the counts of all users."""


class Popularity(CatalogueRetriever):
    """Retriever that scores items by their number of interactions.

    Without a half-life, the counts come from the training rows. With a half-life, they come from the dataset's log up
    to the start of the request's day.
    """

    Settings = PopularitySettings
    settings: PopularitySettings

    def learn(self, history: History, seed: int, device: str | None) -> None:
        """Count interactions per segment."""
        self.facts["segments"] = sorted(set(self._values()))
        self._take_segments()
        users = np.repeat(np.arange(history.n_users), np.diff(history.offsets))
        self.counts = self._counted(users, self.codes[history.items], np.ones(len(users)))

    def weights(self) -> dict[str, Array]:
        """Return the counts (S, N) of each segment and item."""
        return {"counts": self.counts}

    def restore(self, weights: dict[str, Array], device: str | None) -> None:
        """Restore the counts."""
        self._take_segments()
        self.counts = weights["counts"]

    def scores(self, requests: Requests) -> Array:
        """Return the counts (B, N) of each request's segment, smoothed by the counts of all users."""
        out = np.empty((len(requests), len(self.places)))
        for rows, day, segment in self._kinds(requests):
            out[rows] = self._ranked(day, segment)[0]
        return out

    def room(self, k: int) -> int:
        """Return the number of items, so that :meth:`best` serves every request."""
        return len(self.places)

    def best(self, requests: Requests, k: int) -> Slate:
        """Return the most popular items of each request's segment, from a precomputed order."""
        items, scores = np.empty((len(requests), k), np.int64), np.empty((len(requests), k))
        for rows, day, segment in self._kinds(requests):
            found, order = self._ranked(day, segment)
            items[rows], scores[rows] = order[:k], found[order[:k]]
        return Slate(items, scores)

    def bound_to(self, users: Dataset) -> Self:
        """Return a copy for other users, whose segments are read from their user table. The counts still come from the
        log."""
        made = super().bound_to(users)
        made.segments = made._numbered()
        return made

    def _take_segments(self) -> None:
        """Number the segments of the log's users, and clear the cached counts."""
        self.segments = self._log_segments = self._numbered()
        self._orders: OrderedDict[tuple[int, int], tuple[Array, Array]] = OrderedDict()

    def _kinds(self, requests: Requests) -> list[tuple[Array, int, int]]:
        """Group the requests with the same scores, and return for each group a mask (B,) of its requests, the day (0
        without a half-life) and the segment (0 without segments)."""
        days = requests.time // DAY if self.settings.half_life_days is not None else np.zeros(len(requests), np.int64)
        segments = self.segments[requests.user] if self.settings.segment else np.zeros(len(requests), np.int64)
        kinds, inverse = np.unique(np.stack([days, segments]), axis=1, return_inverse=True)
        return [(inverse.ravel() == at, int(day), int(segment)) for at, (day, segment) in enumerate(kinds.T)]

    def _ranked(self, day: int, segment: int) -> tuple[Array, Array]:
        """Return the scores (N,) of a segment on a day, and the items (N,) sorted by score, best first."""
        if (day, segment) not in self._orders:
            half_life = self.settings.half_life_days
            counts = self.counts if half_life is None else self._decayed(day * DAY, half_life)
            total = counts.sum(axis=0)
            everybody = PRIOR * total / max(float(total.sum()), 1.0)
            for number in range(len(counts)) if self.settings.segment else (0,):
                scores = (counts[number] if self.settings.segment else 0.0) + everybody
                self._orders[day, number] = scores, np.argsort(-scores, kind="stable")
            while len(self._orders) > max(2 * len(counts), REMEMBERED // len(self.places)):
                self._orders.popitem(last=False)
        return self._orders[day, segment]

    def _decayed(self, now: int, half_life: float) -> Array:
        """Return decayed counts (S, N) of the interactions of the log strictly before ``now``."""
        history = self.log.history
        users = np.repeat(np.arange(history.n_users), np.diff(history.offsets))
        past = (history.times < now) & (self.codes[history.items] >= 0)
        ages = (now - history.times[past]) / (half_life * DAY)
        return self._counted(users[past], self.codes[history.items[past]], np.exp2(-ages))

    def _counted(self, users: Array, items: Array, amounts: Array) -> Array:
        """Return the sums (S, N) of the amounts per segment and item. The last of the S segments holds the users whose
        value did not occur in training."""
        kinds, count = len(self.facts["segments"]) + 1, len(self.places)
        return np.bincount(self._log_segments[users] * count + items, amounts, minlength=kinds * count).reshape(
            kinds, count
        )

    def _values(self) -> list[str]:
        """Return each user's value in the segment column as a string, empty if missing."""
        column, users = self.settings.segment, self.dataset.users
        if column is None:
            return [""] * len(users)
        if column not in users.columns:
            raise ConfigError(
                "The user table has no column of this name.",
                where="segment",
                expected=f"one of {', '.join(users.columns[2:]) or '(it has none)'}",
                found=column,
            )
        return users[column].cast(pl.String).fill_null("").to_list()

    def _numbered(self) -> Array:
        """Return the segment of each user (n_users,)."""
        numbers = {name: number for number, name in enumerate(self.facts["segments"])}
        return np.array([numbers.get(value, len(numbers)) for value in self._values()], dtype=np.int64)
