"""Seconds watched: the product of log-normal noise and effects of interest, duration, user segment and category.

The effects of duration, segment and category are planted biases.
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
from taiji.world.laws import log_normal_mean
from taiji.world.mechanism import Ground, Mechanism
from taiji.world.mechanisms.content import Content

Array = NDArray[Any]


class WatchSettings(Base):
    """Settings of ``watch``."""

    seconds: float = Field(default=12.0, gt=0)
    """Median seconds that a user without interest watches an item of median duration."""
    interest: float = Field(default=0.35, ge=0)
    """Increase of the log seconds per unit of interest."""
    duration: float = Field(default=0.7, ge=0)
    """Duration bias: seconds grow with the duration to this power, independently of the interest."""
    segment: float = Field(default=0.3, ge=0)
    """Standard deviation of the effects of user segments, on the log scale."""
    category: float = Field(default=0.2, ge=0)
    """Standard deviation of the effects of kinds of items, on the log scale."""
    noise: float = Field(default=0.6, ge=0)
    """Standard deviation of the noise, on the log scale."""


class Watch(Mechanism[WatchSettings]):
    """Watch time of viewed items; replays count again, so it is unbounded. Stateless."""

    Settings = WatchSettings
    after = ("funnel", "taste", "live", "surfaces")
    twins: ClassVar = {
        "": {"duration": 0.0, "segment": 0.0, "category": 0.0},
        "duration": {"duration": 0.0},
        "segment": {"segment": 0.0},
        "category": {"category": 0.0},
        "interest": {"interest": 0.0},
    }
    truths = ("watch", "unbiased_interest")
    labels = (Task(name="watch", kind="duration"),)
    bias = ("duration", "segment")

    def __init__(self, settings: WatchSettings, ground: Ground, draws: Draws) -> None:
        super().__init__(settings, ground, draws)
        self.content = ground.need(Content, "watch")
        self.segment_bias = settings.segment * draws.normal("segment", np.arange(ground.segments))
        kinds = int(self.content.kind.max()) + 1
        self.category_bias = settings.category * draws.normal("category", np.arange(kinds))

    def location(self, exposure: Exposure) -> Array:
        """Return the mean (B, L) of the log seconds of a view."""
        s, items = self.settings, exposure.safe_items
        duration = np.log(self.content.duration[items] / self.content.settings.duration)
        return np.asarray(
            np.log(s.seconds)
            + s.interest * exposure.term("interest")
            + exposure.term("watch")
            + s.duration * duration
            + self.segment_bias[self.ground.traits["segment"][exposure.user]][:, None]
            + self.category_bias[self.content.kind[items]]
        )

    def shape(self, exposure: Exposure) -> None:
        """Record the duration of each shown item and the segment of the user; both become columns of the log."""
        exposure.display["duration"] = self.content.duration[exposure.safe_items]
        segment = self.ground.traits["segment"][exposure.user][:, None]
        exposure.display["segment"] = np.broadcast_to(segment, exposure.shape)

    def expect(self, exposure: Exposure) -> None:
        """Set the expectations of ``watch`` (seconds) and of ``unbiased_interest``, the interest without the biases."""
        mean = log_normal_mean(self.location(exposure), self.settings.noise)
        exposure.expected["watch"] = exposure.expected["view"] * mean
        exposure.expected["unbiased_interest"] = np.where(exposure.shown, exposure.term("interest"), 0.0)

    def draw(self, exposure: Exposure) -> None:
        """Draw the seconds of each view."""
        noise = self.settings.noise * self.draws.normal("seconds", *exposure.keys)
        seconds = np.exp(self.location(exposure) + noise)
        exposure.outcome["watch"] = np.where(exposure.outcome["view"] == 1, seconds, 0.0)
