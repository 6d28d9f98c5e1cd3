"""Leaving and returning, which depend on the outcomes of the lists that a user was shown.

With ``confounded`` > 0, keen users also return sooner, whatever they were shown.
"""

from __future__ import annotations

from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from taiji.core.errors import ConfigError
from taiji.core.settings import Settings as Base
from taiji.world.draws import Draws
from taiji.world.exposure import Exposure
from taiji.world.mechanism import Ground, Mechanism

Array = NDArray[Any]


class RetentionSettings(Base):
    """Settings of ``retention``."""

    outcome: str = "click"
    """Outcome (``click``, ``pleased``, ``buy``) that measures how good a list is, by its share among the viewed
    positions."""
    centre: float = Field(default=0.15, ge=0, le=1)
    """Share of viewed positions with the outcome at which a list is neutral."""
    scale: float = Field(default=0.15, gt=0)
    """Difference from the neutral share that gives a list the value 1; values are limited to the range from −2 to 2."""
    fading: float = Field(default=0.6, ge=0, lt=1)
    """Weight of the previous mood in the mood after a list; the value of the list gets the rest."""
    stay: float = Field(default=0.7, ge=0)
    """Decrease of the logit of leaving at a mood of 1."""
    back: float = Field(default=0.5, ge=0)
    """Decrease of the log time away at a mood of 1."""
    confounded: float = Field(default=0.0, ge=0)
    """Decrease of the log time away per standard deviation of keenness: users who click more return sooner, but not
    because of the clicks."""


class Retention(Mechanism[RetentionSettings]):
    """Retention of users. State: mood (users,), updated by every list."""

    Settings = RetentionSettings
    after = ("funnel", "watch", "satisfaction", "comments", "network", "load", "creators")
    twins: ClassVar = {"": {"stay": 0.0, "back": 0.0, "confounded": 0.0}, "confounding": {"confounded": 0.0}}

    def __init__(self, settings: RetentionSettings, ground: Ground, draws: Draws) -> None:
        super().__init__(settings, ground, draws)
        keenness = ground.traits["keenness"]
        self.eager = keenness / max(float(keenness.std()), 1e-12)
        self.begin()

    def begin(self) -> None:
        """Start with neutral moods."""
        self.mood = np.zeros(self.ground.users)

    def settle(self, exposure: Exposure) -> None:
        """Update the moods, which change the probability of leaving and the time until the next visit."""
        s, user = self.settings, exposure.user
        viewed = np.maximum(exposure.outcome["view"].sum(axis=1), 1)
        if s.outcome not in exposure.outcome:
            raise ConfigError(
                "Users' moods depend on an outcome that this world does not have.", where="mechanisms.retention.outcome",
                expected=", ".join(exposure.outcome), found=s.outcome,
            )  # fmt: skip
        share = np.nansum(exposure.outcome[s.outcome], axis=1) / viewed
        good = np.clip((share - s.centre) / s.scale, -2.0, 2.0)
        self.mood[user] = s.fading * self.mood[user] + (1 - s.fading) * good
        exposure.add_row("leave", -s.stay * self.mood[user])
        exposure.add_row("delay", -s.back * self.mood[user] - s.confounded * self.eager[user])
