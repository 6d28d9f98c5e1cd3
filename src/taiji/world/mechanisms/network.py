"""Network: each user's bandwidth follows a Markov chain, items have different bitrates, and stalls make users leave."""

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
from taiji.world.mechanisms.content import Content

Array = NDArray[Any]
STATES = ("poor", "fair", "good")
LADDER = (0.6, 1.5, 4.0)
"""Bitrates of items in Mbit/s."""


class NetworkSettings(Base):
    """Settings of ``network``."""

    levels: tuple[float, float, float] = (0.8, 3.0, 12.0)
    """Median bandwidth in each state, in Mbit/s."""
    shares: tuple[float, float, float] = (0.2, 0.4, 0.4)
    """Long-run share of each state."""
    change: float = Field(default=0.2, ge=0, le=1)
    """Probability that the state is redrawn at a request."""
    spread: float = Field(default=0.3, gt=0)
    """Scale of the bandwidth's logistic noise, on the log scale."""
    startup: float = Field(default=4.0, gt=0)
    """Seconds of a video that must be loaded before it starts."""
    patience: float = Field(default=2.0, gt=0)
    """Longest waiting time, in seconds, that does not count as a stall."""
    buffer: float = Field(default=6.0, ge=0)
    """Seconds that are preloaded in the good state of the network; half as many in the fair state, none in the poor
    state."""
    cut: float = Field(default=0.6, ge=0, le=1)
    """Share of the watch time lost by a stall."""
    leave: float = Field(default=0.5, ge=0)
    """Amount that each stall adds to the logit of leaving."""


def stall_threshold(bitrate: Array, duration: Array, buffer: Array, startup: float, patience: float) -> Array:
    """Return the bandwidth below which a video stalls.

    With ``buffer`` seconds preloaded, a video stalls in two cases:

    * the start takes longer than ``patience``: bandwidth · patience < bitrate · (startup − buffer)
    * the buffer is empty before the end: bandwidth · duration < bitrate · (duration − buffer)
    """
    waiting = bitrate * np.maximum(startup - buffer, 0.0) / patience
    running_out = bitrate * np.maximum(duration - buffer, 0.0) / np.maximum(duration, 1e-9)
    return np.maximum(waiting, running_out)


class Network(Mechanism[NetworkSettings]):
    """Networks of users. State: index into :data:`STATES` (users,), updated at every request."""

    Settings = NetworkSettings
    after = ("content", "funnel", "watch", "satisfaction")
    twins: ClassVar = {"": {"cut": 0.0, "leave": 0.0}}
    truths = ("stall",)
    labels = (Task(name="stall"),)
    context = ("network",)
    choices: ClassVar = {"network": STATES}
    decisions = ("prefetched",)
    bias = ("bitrate",)

    def __init__(self, settings: NetworkSettings, ground: Ground, draws: Draws) -> None:
        super().__init__(settings, ground, draws)
        self.content = ground.need(Content, "network")
        self.bitrate = np.array(LADDER)[draws.integers("bitrate", 3, np.arange(ground.items))]
        self.begin()

    def begin(self) -> None:
        """Draw the initial states from their long-run shares."""
        user = np.arange(self.ground.users)
        self.state = self.draws.choice("first", np.broadcast_to(self.settings.shares, (len(user), 3)), user)

    def observe(self, exposure: Exposure) -> None:
        """Update the states of the requesting users."""
        s, keys = self.settings, exposure.row_keys
        drawn = self.draws.choice("state", np.broadcast_to(s.shares, (len(exposure.user), 3)), *keys)
        changes = self.draws.uniform("changes", *keys) < s.change
        self.state[exposure.user] = np.where(changes, drawn, self.state[exposure.user])
        exposure.context["network"] = np.array(STATES)[self.state[exposure.user]]

    def assume(self, exposure: Exposure) -> None:
        """Use the users' current states if no states are given."""
        if "network" not in exposure.context:
            exposure.context["network"] = np.array(STATES)[self.state[exposure.user]]

    def threshold(self, exposure: Exposure) -> tuple[Array, Array]:
        """Return median bandwidths (B, 1), and the bandwidths (B, L) below which items stall, in Mbit/s."""
        s, items = self.settings, exposure.safe_items
        state = (exposure.context["network"][:, None] == np.array(STATES)).argmax(axis=1)
        buffer = np.broadcast_to((s.buffer * np.array([0.0, 0.5, 1.0]))[state][:, None], exposure.shape)
        duration = self.content.duration[items]
        if "prefetched" in exposure.display:
            buffer = np.where(exposure.display["prefetched"] > 0, duration + s.startup, buffer)
        level = np.asarray(s.levels)[state][:, None]
        return level, stall_threshold(self.bitrate[items], duration, buffer, s.startup, s.patience)

    def chance(self, exposure: Exposure) -> Array:
        """Return the probability (B, L) that a view stalls."""
        level, threshold = self.threshold(exposure)
        return np.where(
            threshold > 0, sigmoid(np.log(np.maximum(threshold, 1e-300) / level) / self.settings.spread), 0.0
        )

    def expect(self, exposure: Exposure) -> None:
        """Set the expectation of stalls, and reduce the expectation of watch time by the time that stalls cost."""
        chance = self.chance(exposure)
        exposure.display["bitrate"] = self.bitrate[exposure.safe_items]
        exposure.expected["stall"] = exposure.expected["view"] * chance
        if "watch" in exposure.expected:
            exposure.expected["watch"] = exposure.expected["watch"] * (1 - self.settings.cut * chance)

    def draw(self, exposure: Exposure) -> None:
        """Draw the bandwidth of each view, which determines stalls, and shorten the watch time of stalled views."""
        level, threshold = self.threshold(exposure)
        bandwidth = level * np.exp(self.settings.spread * self.draws.logistic("bandwidth", *exposure.keys))
        stalls = (exposure.outcome["view"] == 1) & (bandwidth < threshold)
        exposure.outcome["stall"] = stalls.astype(np.float64)
        if "watch" in exposure.outcome:
            exposure.outcome["watch"] = exposure.outcome["watch"] * (1 - self.settings.cut * stalls)

    def settle(self, exposure: Exposure) -> None:
        """Let stalls make users leave."""
        exposure.add_row("leave", self.settings.leave * exposure.outcome["stall"].sum(axis=1))
