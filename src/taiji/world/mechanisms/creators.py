"""Creators: the more their items are exposed, the more often they upload new items."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from taiji.core.settings import Settings as Base
from taiji.world.draws import Draws
from taiji.world.exposure import Exposure
from taiji.world.laws import sigmoid
from taiji.world.mechanism import Ground, Mechanism
from taiji.world.mechanisms.content import Content

Array = NDArray[Any]


class CreatorsSettings(Base):
    """Settings of ``creators``."""

    stock: float = Field(default=0.3, ge=0, le=1)
    """Share of each creator's items that exist from the start."""
    bias: float = -1.5
    """Logit of the probability that a creator without exposure uploads an item on a day."""
    reach: float = Field(default=1.5, ge=0)
    """Coefficient of log(1 + recent exposure / mean recent exposure of all creators) in the logit of an upload."""
    fading: float = Field(default=0.7, ge=0, lt=1)
    """Weight of the earlier days in the recent exposure; the last day gets the rest."""


class Creators(Mechanism[CreatorsSettings]):
    """Creators of items. State: exposures of each creator today and recently (creators,), and the users reached."""

    Settings = CreatorsSettings
    after = ("content", "live", "funnel")
    twins: ClassVar = {"": {"reach": 0.0}}

    def __init__(self, settings: CreatorsSettings, ground: Ground, draws: Draws) -> None:
        super().__init__(settings, ground, draws)
        self.content = ground.need(Content, "creators")
        n = self.content.settings.creators
        order = np.argsort(self.content.creator, kind="stable")
        first = np.searchsorted(self.content.creator[order], np.arange(n + 1))
        self.count = np.diff(first)
        self._order, self._first = order, first
        self.start = np.ceil(settings.stock * self.count).astype(np.int64)
        self.begin()

    def begin(self) -> None:
        """Start with only the initial items and without exposure."""
        n, content = len(self.count), self.content
        content.begin()
        place = np.arange(self.ground.items) - self._first[content.creator[self._order]]
        born = np.where(place < self.start[content.creator[self._order]], 0.0, np.inf)
        content.born = np.empty(self.ground.items)
        content.born[self._order] = born
        self.uploaded = self.start.copy()
        self.today, self.recent, self.total = np.zeros(n), np.zeros(n), np.zeros(n)
        self.reached = np.zeros((n, self.ground.users), dtype=bool)
        self._day = 0

    def upload_chance(self) -> Array:
        """Return (creators,) probabilities of an upload at the start of a day, used as the creators' utility.

        They depend on the recent exposure, to which :meth:`advance` adds the exposure of a day after its end.
        """
        even = max(self.recent.mean(), 1e-9)
        return sigmoid(self.settings.bias + self.settings.reach * np.log1p(self.recent / even))

    @property
    def reach(self) -> Array:
        """(creators,) number of users to whom an item of the creator was shown."""
        return self.reached.sum(axis=1)

    @property
    def uploads(self) -> Array:
        """(creators,) number of items uploaded since the start."""
        return self.uploaded - self.start

    def advance(self, slot: int) -> None:
        """Let creators upload at the start of each day."""
        day = int(slot * self.ground.slot_days + 1e-9)
        if day <= self._day:
            return
        self._day = day
        self.recent = self.settings.fading * self.recent + (1 - self.settings.fading) * self.today
        self.today = np.zeros_like(self.today)
        creator = np.arange(len(self.count))
        willing = self.draws.uniform("uploads", creator, day) < self.upload_chance()
        up = np.flatnonzero(willing & (self.uploaded < self.count))
        self.content.born[self._order[self._first[up] + self.uploaded[up]]] = slot * self.ground.slot_days
        self.uploaded[up] += 1

    def settle(self, exposure: Exposure) -> None:
        """Count the exposures of creators to users."""
        shown = exposure.shown
        creator = self.content.creator[exposure.items[shown]]
        counts = np.bincount(creator, minlength=len(self.count))
        self.today += counts
        self.total += counts
        self.reached[creator, np.broadcast_to(exposure.user[:, None], shown.shape)[shown]] = True

    def item_columns(self) -> Mapping[str, Any]:
        """Return the day on which each item was uploaded: 0 for items that exist from the start, −1 for never."""
        return {"uploaded": np.where(np.isfinite(self.content.born), self.content.born, -1.0)}
