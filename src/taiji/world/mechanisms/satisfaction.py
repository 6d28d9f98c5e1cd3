"""Satisfaction, as distinct from watch time: bait raises clicks and watch time, but lowers satisfaction.

Few users are asked whether they are satisfied, and fewer answer, with selection bias.
"""

from __future__ import annotations

from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from taiji.core.settings import Settings as Base
from taiji.data.tasks import Task
from taiji.world.draws import Draws
from taiji.world.exposure import Exposure
from taiji.world.laws import sigmoid
from taiji.world.mechanism import Ground, Mechanism

Array = NDArray[Any]


class SatisfactionSettings(Base):
    """Settings of ``satisfaction``."""

    bias: float = -0.5
    """Logit of the probability that a view without interest or bait satisfies the user."""
    interest: float = Field(default=0.8, ge=0)
    """Increase of the logit of being satisfied per unit of interest."""
    bait: float = Field(default=1.2, ge=0)
    """Decrease of the logit of being satisfied per standard deviation of bait."""
    lure: float = Field(default=0.5, ge=0)
    """Amount that a standard deviation of bait adds to the logit of a click."""
    hold: float = Field(default=0.3, ge=0)
    """Amount that a standard deviation of bait adds to the logarithm of the seconds watched."""
    asked: float = Field(default=0.005, ge=0, le=1)
    """Share of the views after which a question is shown."""
    answers: float = Field(default=0.015, ge=0, le=0.5)
    """Response rate of asked users, averaged over satisfied and unsatisfied ones."""
    selection: float = Field(default=0.4, ge=0, lt=1)
    """Selection bias: the response rate of satisfied users is higher by this share, and that of the others lower by the
    same share."""


class Satisfaction(Mechanism[SatisfactionSettings]):
    """Satisfaction with views. State: bait of items (items,), constant."""

    Settings = SatisfactionSettings
    after = ("funnel", "watch", "taste", "content")
    twins: ClassVar = {"": {"bait": 0.0, "lure": 0.0, "hold": 0.0, "selection": 0.0}, "selection": {"selection": 0.0}}
    truths = ("pleased",)
    labels = (Task(name="satisfied", kind="survey"),)

    def __init__(self, settings: SatisfactionSettings, ground: Ground, draws: Draws) -> None:
        super().__init__(settings, ground, draws)
        self.bait = draws.normal("bait", np.arange(ground.items))

    def shape(self, exposure: Exposure) -> None:
        """Let bait attract clicks and hold viewers."""
        bait = self.bait[exposure.safe_items]
        exposure.add("click", self.settings.lure * bait)
        exposure.add("watch", self.settings.hold * bait)

    def chance(self, exposure: Exposure) -> Array:
        """Return the probability (B, L) that a view satisfies the user."""
        s = self.settings
        return sigmoid(s.bias + s.interest * exposure.term("interest") - s.bait * self.bait[exposure.safe_items])

    def expect(self, exposure: Exposure) -> None:
        """Set the expectation of satisfied views."""
        exposure.expected["pleased"] = exposure.expected["view"] * self.chance(exposure)

    def draw(self, exposure: Exposure) -> None:
        """Draw satisfaction (``pleased``, not in the log) and the answers of respondents (``satisfied``)."""
        s = self.settings
        viewed = exposure.outcome["view"] == 1
        pleased = viewed & (self.draws.uniform("pleased", *exposure.keys) < self.chance(exposure))
        asked = viewed & (self.draws.uniform("asked", *exposure.keys) < s.asked)
        willing = s.answers * (1 + s.selection * np.where(pleased, 1.0, -1.0))
        answered = asked & (self.draws.uniform("answers", *exposure.keys) < willing)
        exposure.outcome["pleased"] = pleased.astype(np.float64)
        exposure.outcome["asked"] = asked.astype(np.float64)
        exposure.outcome["satisfied"] = np.where(answered, pleased.astype(np.float64), np.nan)
