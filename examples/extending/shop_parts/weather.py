"""A mechanism of simulated worlds: on rainy days people click more, and some who click get wet."""

from typing import ClassVar

import numpy as np
from pydantic import Field

from taiji.core.settings import Settings
from taiji.data.tasks import Task
from taiji.world import Exposure, Mechanism


class WeatherSettings(Settings):
    """Settings of the weather."""

    rain: float = Field(default=0.3, ge=0, le=1)
    """Share of rainy days."""
    mood: float = 0.8
    """Amount that rain adds to the logit of a click."""


class Weather(Mechanism[WeatherSettings]):
    """Weather: on some days it rains, and rain changes how likely clicks are. This mechanism has no state."""

    Settings = WeatherSettings
    twins: ClassVar = {"": {"mood": 0.0}}
    truths = ("wet",)
    labels = (Task(name="wet", given="click"),)
    context = ("raining",)

    def observe(self, exposure: Exposure) -> None:
        """Add a column to the requests: 1 if it rains, otherwise 0."""
        day = exposure.time.astype(np.int64)
        exposure.context["raining"] = self.draws.uniform("rain", day) < self.settings.rain

    assume = observe

    def shape(self, exposure: Exposure) -> None:
        """Add the mood to the click's logit."""
        exposure.add("click", self.settings.mood * exposure.context["raining"][:, None])

    def expect(self, exposure: Exposure) -> None:
        """Set the expectation of wet users: half of the clicks in the rain."""
        exposure.expected["wet"] = 0.5 * exposure.expected["click"] * exposure.context["raining"][:, None]

    def draw(self, exposure: Exposure) -> None:
        """Draw who gets wet."""
        out = (exposure.outcome["click"] == 1) & exposure.context["raining"][:, None]
        wet = out & (self.draws.uniform("wet", *exposure.keys) < 0.5)
        exposure.outcome["wet"] = wet.astype(np.float64)
