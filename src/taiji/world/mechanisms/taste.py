"""Tastes of users: a constant long-term part, a short-term part that drifts, and separate tastes for single
behaviours."""

from __future__ import annotations

from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from taiji.core.settings import Settings as Base
from taiji.world.draws import Draws
from taiji.world.exposure import Exposure
from taiji.world.laws import blend, drift, unit
from taiji.world.mechanism import Ground, Mechanism
from taiji.world.mechanisms.content import Content

Array = NDArray[Any]


class TasteSettings(Base):
    """Settings of ``taste``."""

    strength: float = Field(default=3.0, ge=0)
    """Interest, on the logit scale, of a user with full affinity to an item."""
    breadth: float = Field(default=0.25, ge=0)
    """Standard deviation of a taste around the user's two favourite topics."""
    short: float = Field(default=0.4, ge=0, le=1)
    """Weight of the short-term part."""
    pull: float = Field(default=0.3, ge=0)
    """Rate per day at which the short-term part approaches the long-term part: in a slot of t days it covers ``pull`` ·
    t (at most 1) of the distance."""
    drift: float = Field(default=1.0, ge=0)
    """Standard deviation of the short-term part's random walk per day; 0 keeps it constant."""
    behaviours: float = Field(default=0.3, ge=0, le=1)
    """Share by which the tastes for carts and purchases differ from the taste for viewing."""


class Taste(Mechanism[TasteSettings]):
    """Users' tastes, unit vectors over topics (users, topics); they drift independently of exposures."""

    Settings = TasteSettings
    after = ("content",)
    twins: ClassVar = {
        "": {"strength": 0.0},
        "drift": {"drift": 0.0, "pull": 0.0},
        "short": {"short": 0.0},
        "behaviours": {"behaviours": 0.0},
    }

    def __init__(self, settings: TasteSettings, ground: Ground, draws: Draws) -> None:
        super().__init__(settings, ground, draws)
        topics = ground.need(Content, "taste").settings.topics
        user, topic = np.arange(ground.users), np.arange(topics)
        first = draws.integers("favourite", topics, user)
        second = draws.integers("second favourite", topics, user)
        liked = 1.0 * (topic == first[:, None]) + 0.5 * (topic == second[:, None])
        self.long = unit(liked + settings.breadth * draws.normal("liking", user[:, None], topic))
        self._start = self.long
        self.offsets = {name: unit(draws.normal(f"taste for {name}", user[:, None], topic)) for name in ("cart", "buy")}
        self._short, self._slot = self._start, 0

    def short_at(self, slot: int) -> Array:
        """Return the short-term parts of tastes (users, topics) in a slot; they do not depend on exposures."""
        s, user = self.settings, np.arange(self.ground.users)[:, None]
        if slot < self._slot:
            self._short, self._slot = self._start, 0
        while self._slot < slot:
            self._slot += 1
            if s.drift or s.pull:
                noise = self.draws.normal("drift", user, self._slot, np.arange(self.long.shape[1]))
                self._short = drift(
                    self._short, self.long, noise, pull=s.pull, spread=s.drift, step=self.ground.slot_days
                )
        return self._short

    def at(self, users: Array, slot: int) -> Array:
        """Return the tastes (B, topics) of users in a slot."""
        return blend(self.long[users], self.short_at(slot)[users], self.settings.short)

    def place(self, exposure: Exposure) -> None:
        """Add the tastes at the exposure's slot. With strength 0, add none, so that other mechanisms do not use them
        either."""
        if not self.settings.strength:
            return
        exposure.user_vector = self.at(exposure.user, exposure.slot)
        if self.settings.behaviours:
            for name, offset in self.offsets.items():
                exposure.behaviour_vectors[name] = blend(
                    exposure.user_vector, offset[exposure.user], self.settings.behaviours
                )

    def shape(self, exposure: Exposure) -> None:
        """Add the affinity to the interest."""
        exposure.add("interest", self.settings.strength * exposure.affinity())
