"""Load: only a limited number of lists can be computed per slot. Further requests get the rest of an earlier list."""

from __future__ import annotations

from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from taiji.core.component import NO_ITEM
from taiji.core.settings import Settings as Base
from taiji.world.draws import Draws
from taiji.world.exposure import Exposure
from taiji.world.mechanism import Ground, Mechanism
from taiji.world.observation import Choice

Array = NDArray[Any]


class LoadSettings(Base):
    """Settings of ``load``."""

    capacity: float = Field(default=0.8, gt=0)
    """Number of lists that can be computed per slot, relative to the number of requests expected in a slot of average
    demand."""
    stale: bool = True
    """Show the cached list to requests served from the cache. If False, they get a newly computed list at no cost."""


class Load(Mechanism[LoadSettings]):
    """Limited capacity. State: number of lists computed in the current slot, and users' cached lists (users, slate)."""

    Settings = LoadSettings
    after = ("network", "surfaces")
    twins: ClassVar = {"": {"stale": False}}
    context = ("load", "served_from")
    decisions = ("fresh",)

    def __init__(self, settings: LoadSettings, ground: Ground, draws: Draws) -> None:
        super().__init__(settings, ground, draws)
        mean = ground.requests * ground.slot_days
        self.capacity = max(round(settings.capacity * mean), 1)
        self.begin()

    def begin(self) -> None:
        """Start with nothing computed and nothing cached."""
        self.computed, self.asked, self.most = 0, 0, 0
        self.lists = np.full((self.ground.users, self.ground.slate), NO_ITEM, dtype=np.int64)
        self.chances = np.full(self.lists.shape, np.nan)

    def advance(self, slot: int) -> None:
        """Start a slot with the full capacity."""
        self.computed, self.asked = 0, 0

    def observe(self, exposure: Exposure) -> None:
        """Add two context columns: ``load`` (number of requests of the slot so far, relative to the capacity) and
        ``has_cache``."""
        self.asked += len(exposure.user)
        exposure.context["load"] = np.full(len(exposure.user), self.asked / self.capacity)
        exposure.context["has_cache"] = self.has_cache(exposure.user)

    def has_cache(self, users: Array) -> Array:
        """Return (B,) bool, True for users with a cached list."""
        return (self.lists[users] != NO_ITEM).any(axis=1)

    def cached(self, users: Array) -> Array:
        """Return the cached lists (B, slate)."""
        return self.lists[users]

    def left(self, users: Array, available: Array) -> tuple[Array, Array]:
        """Return the cached lists without items that are no longer ``available`` (items,), padded with :data:`NO_ITEM`,
        and the position of each item in the original cached list; both are (B, slate)."""
        kept = self.lists[users]
        kept = np.where((kept != NO_ITEM) & available[np.maximum(kept, 0)], kept, NO_ITEM)
        order = np.argsort(kept == NO_ITEM, axis=1, kind="stable")
        return np.take_along_axis(kept, order, axis=1), order

    def serve(self, exposure: Exposure, choice: Choice) -> None:
        """Serve computed lists to requests chosen by the policy, within the capacity, and cached lists to the others.
        The items that follow a computed list in the policy's ranking become the user's cached list.
        """
        b, user = len(exposure.user), exposure.user
        wanted = exposure.context.pop("chosen_fresh", np.ones(b)) > 0
        order = np.argsort(np.where(wanted, self.draws.uniform("turn", *exposure.row_keys), 2.0), kind="stable")
        fresh = np.zeros(b, dtype=bool)
        fresh[order[: max(min(self.capacity - self.computed, int(wanted.sum())), 0)]] = True
        self.computed += int(fresh.sum())
        self.most = max(self.most, self.computed)
        exposure.context["served_from"] = np.where(fresh, "real time", "cache")
        if self.settings.stale and not fresh.all():
            items, chances = self._left_over(exposure)
            exposure.items = np.where(fresh[:, None], exposure.items, items)
            exposure.display["propensity"] = np.where(fresh[:, None], exposure.display["propensity"], chances)
        length = self.ground.slate
        spare, chances = choice.items[:, length : 2 * length], choice.chances[:, length : 2 * length]
        rows = fresh & (spare != NO_ITEM).any(axis=1)
        self.lists[user[rows]] = NO_ITEM
        self.lists[user[rows], : spare.shape[1]] = spare[rows]
        self.chances[user[rows], : spare.shape[1]] = chances[rows]

    def _left_over(self, exposure: Exposure) -> tuple[Array, Array]:
        """Return cached lists without items that are no longer available, and their propensities, (B, slate) each.

        A user with no cached list, or with nothing left of it, gets the first candidates in the given order.
        """
        assert exposure.candidates is not None and exposure.available is not None and exposure.pool is not None
        kept, order = self.left(exposure.user, exposure.available)
        chances = np.take_along_axis(self.chances[exposure.user], order, axis=1)
        plain: Array = np.full(kept.shape, NO_ITEM, dtype=np.int64)
        count = min(self.ground.slate, exposure.candidates.shape[1])
        plain[:, :count] = exposure.candidates[:, :count]
        nothing = (kept == NO_ITEM).all(axis=1, keepdims=True)
        return np.where(nothing, plain, kept), np.where(nothing, 1 / np.maximum(exposure.pool, 1)[:, None], chances)

    def settle(self, exposure: Exposure) -> None:
        """Empty the cache of users who were served from it, so that no list is shown twice."""
        cached = exposure.context["served_from"] == "cache"
        if self.settings.stale:
            self.lists[exposure.user[cached]] = NO_ITEM
