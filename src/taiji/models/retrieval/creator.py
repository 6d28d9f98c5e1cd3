"""Retrieval of users for new items, with two towers and a limited capacity per user (DualRec, arXiv 2502.20497).

A new item is matched with the users for whom it is worth most, among the users who are likely to be active on the next
day and have remaining capacity. The worth of a match is the item's score for the user minus the user's mean score over
all items. No user is matched with more items than the capacity. An auction makes the matches independent of the order
of the items. After that, a matched item has a higher score for its user.
"""

from __future__ import annotations

from typing import Any, Literal, Self

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import Field, PositiveInt

from taiji.core.component import Requests
from taiji.data.availability import EVER
from taiji.data.dataset import Dataset
from taiji.data.history import History
from taiji.models.retrieval.matches import Matches
from taiji.models.retrieval.retriever import seen_items
from taiji.models.retrieval.two_towers import TwoTowers, TwoTowersSettings
from taiji.models.retrieval.user_activity import TAUGHT, WINDOWS, activity_chances, fit_activity
from taiji.nn.devices import on_device

Array = NDArray[Any]
DAY = 86_400_000_000


class CreatorSettings(TwoTowersSettings):
    """Settings of :class:`CreatorSide`."""

    new_days: float = Field(default=2.0, gt=0)
    """Number of days for which an item is new. They are counted from the item's `available_from` or, if this is
    missing, from its first interaction. An item with neither is new."""
    per_item: PositiveInt = 50
    """Largest number of users matched with an item."""
    capacity: PositiveInt = 10
    """Largest number of items matched with a user."""
    candidates: PositiveInt = 200
    """Largest number of candidate users per item; the users with the highest worth are kept."""
    active: float = Field(default=0.2, ge=0, le=1)
    """A user can be matched only if the probability of being active on the next day is at least this value."""
    order: Literal["auction", "random"] = "auction"
    """Rule that decides which item gets a user's remaining capacity. `auction` prefers the item that gains most from
    the match; `random` prefers the first item in a random order."""
    tolerance: float = Field(default=0.01, gt=0)
    """Step ε of the auction. The total worth of the matches is at most ε per match below the optimum."""
    boost: float = Field(default=0.5, ge=0)
    """Factor λ: a match adds λ times its worth to the item's score for the user; 0 leaves the scores unchanged."""
    without_id: float = Field(default=0.3, ge=0, lt=1)
    """Share of the training targets whose id embedding is left out, so that only their categories represent them, as
    with new items."""


class CreatorSide(TwoTowers):
    """Retriever with two towers, which matches new items with users at the end of the log.

    Attributes:
        matches: pairs of an item (in the model's own indices) and a user (of the bound dataset).
        known: (N,) bool, True for items with interactions; all other items are represented by their categories only.
    """

    Settings = CreatorSettings
    settings: CreatorSettings

    def learn(self, history: History, seed: int, device: str | None) -> None:
        """Train the towers, then match the items that are new at the end of the interactions."""
        s, items = self.settings, np.asarray(history.items)
        self.known = np.bincount(items, minlength=len(self.places)) > 0
        super().learn(history, seed, device)
        now = int(np.asarray(history.times).max()) + 1
        active = daily_activity(history, now)
        chances = active.mean(axis=1) if active.shape[1] < 2 else activity_chances(active, fit_activity(active))
        first = np.full(len(self.places), now)
        np.minimum.at(first, items, np.asarray(history.times))
        start = self.availability.first[self.places]
        born = np.where(start > EVER.min, start, first)
        shown = self.availability.at([now])[0][self.places]
        new = np.flatnonzero((born > now - s.new_days * DAY) & shown)
        requests = Requests(np.arange(history.n_users), np.full(history.n_users, now))
        self.matches = Matches(history.n_users, s.capacity)
        self.matches.add(
            new, self.worth(new, requests), chances >= s.active, per_item=s.per_item, candidates=s.candidates,
            order=s.order, tolerance=s.tolerance, seed=seed,
        )  # fmt: skip
        self.facts["matched_at"] = now

    def for_items(self, items: Array, requests: Requests) -> Array:
        """Return the towers' scores (I, B) of items (I,), in the model's own indices, for the user of each request. The
        boost of matches is not included."""
        return np.asarray(super().scores(requests)[:, items].T)

    def worth(self, items: Array, requests: Requests) -> Array:
        """Return the worth (I, B) of matching each item with the user of each request: the item's score for the user
        minus the user's mean score over all items. The worth is 0 for items in the user's history."""
        scores = super().scores(requests)
        values = (scores[:, items] - scores.mean(axis=1, keepdims=True)).T
        row, seen = seen_items(self.dataset.history, requests)
        place = np.full(len(self.places), -1)
        place[items] = np.arange(len(items))
        own = self.codes[seen]
        at = np.where(own >= 0, place[own], -1)
        values[at[at >= 0], row[at >= 0]] = 0.0
        return np.asarray(values)

    def scores(self, requests: Requests) -> Array:
        """Return the scores of the towers, raised for items that were matched with the user before the request."""
        found = super().scores(requests)
        row, item, worth = self.matches.of(np.where(requests.time >= self.facts["matched_at"], requests.user, -1))
        found[row, item] += self.settings.boost * worth
        return found

    def room(self, k: int) -> int:
        """Return −1, so that every item is scored: an index of vectors would ignore the matches."""
        return -1

    def bound_to(self, users: Dataset) -> Self:
        """Return a copy for other users. It keeps the matches of those users who have been matched already."""
        made = super().bound_to(users)
        made._match(self._user_ids(), self.matches.item, self.matches.worth)
        return made

    def weights(self) -> dict[str, Array]:
        """Return the weights of the towers and the matches. The ids of the matched users are saved in
        ``config.json``."""
        return {
            **super().weights(), "known": self.known, "match_item": self.matches.item, "match_worth": self.matches.worth
        }  # fmt: skip

    def restore(self, weights: dict[str, Array], device: str | None) -> None:
        """Restore the retriever from :meth:`weights`."""
        self.known = weights["known"]
        super().restore(weights, device)
        self._match(self.facts["users"], weights["match_item"], weights["match_worth"])

    def _config(self) -> dict[str, Any]:
        config = super()._config()
        return {**config, "facts": {**config["facts"], "users": self._user_ids()}}

    def _user_ids(self) -> list[Any]:
        """Return the ids of the matched users, one per match."""
        return self.dataset.users["user_id"].gather(self.matches.user).to_list()

    def _match(self, users: list[Any], items: Array, worth: Array) -> None:
        """Set the matches of users given by their ids. Users who are not in the dataset are ignored."""
        # Ids are compared as text, because they are text in a service.
        numbers = {str(name): number for number, name in enumerate(self.dataset.users["user_id"].to_list())}
        user = np.array([numbers.get(str(name), -1) for name in users], dtype=np.int64)
        self.matches = Matches(self.dataset.n_users, self.settings.capacity)
        self.matches.put(user[user >= 0], items[user >= 0], worth[user >= 0])

    def _targets(self, items: torch.Tensor) -> torch.Tensor:
        drop = torch.rand(items.shape, device=items.device) < self.settings.without_id
        return self.network.item(torch.where(drop, 0, items), self._padded[items])  # type: ignore[no-any-return]

    def _numbers(self) -> torch.Tensor:
        numbers = super()._numbers()
        return torch.where(on_device(self.known, numbers.device), numbers, 0)


def daily_activity(history: History, now: int) -> Array:
    """Return a bool array (U, D), True if the user had an interaction on the day. The columns are the last D days
    before ``now``, latest day last.

    Days are periods of 24 hours, counted back from ``now``. D is at most the longest window plus the number of target
    days of the activity model.
    """
    times = np.asarray(history.times)
    ages = (now - 1 - times) // DAY
    days = int(min(ages.max(initial=0) + 1, WINDOWS[-1] + TAUGHT))
    user = np.repeat(np.arange(history.n_users), np.diff(history.offsets))
    found = np.zeros((history.n_users, days), dtype=bool)
    recent = (ages >= 0) & (ages < days)
    found[user[recent], days - 1 - ages[recent]] = True
    return found
