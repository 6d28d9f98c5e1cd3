"""The check of worlds passes ours and foreign ones, and finds what is wrong with others."""

from __future__ import annotations

from collections import Counter
from typing import ClassVar

import numpy as np
import pytest
from pydantic import Field
from tests.world.small import small

from taiji.core.settings import Settings as Base
from taiji.data.tasks import Task
from taiji.testing import check_world
from taiji.world import Exposure, Mechanism, World
from taiji.world.scenario import Scenario


class WeatherSettings(Base):
    """Settings of the weather."""

    rain: float = Field(default=0.3, ge=0, le=1)
    mood: float = 1.0
    looks_ahead: bool = False
    lies: bool = False
    forgets: bool = False
    remembers: bool = False


class Weather(Mechanism[WeatherSettings]):
    """Rain on some days, in which people click more; and a label that tells who got wet."""

    Settings = WeatherSettings
    twins: ClassVar = {"": {"mood": 0.0}, "rain": {"rain": 0.0}}
    truths = ("wet",)
    labels = (Task(name="wet"),)
    context = ("raining",)

    def __init__(self, settings, ground, draws):
        super().__init__(settings, ground, draws)
        self.asked = np.zeros(ground.users)
        self.log_days = Counter()

    def observe(self, exposure: Exposure) -> None:
        exposure.context["raining"] = self.raining(exposure)

    def assume(self, exposure: Exposure) -> None:
        exposure.context.setdefault("raining", self.raining(exposure))

    def raining(self, exposure):
        rain = self.draws.uniform("rain", exposure.time.astype(int)) < self.settings.rain
        if self.settings.remembers:
            self.asked[exposure.user] += 1
        if self.settings.looks_ahead:
            rain = rain ^ (len(self.log_days) % 2 == 1)
            self.log_days[float(exposure.time[0])] += 1
        return rain

    def shape(self, exposure: Exposure) -> None:
        exposure.add("click", self.settings.mood * exposure.context["raining"][:, None])

    def expect(self, exposure: Exposure) -> None:
        wet = 0.5 * exposure.context["raining"][:, None] * exposure.expected["click"]
        exposure.expected["wet"] = wet + 0.2 * self.settings.lies

    def draw(self, exposure: Exposure) -> None:
        raining = exposure.context["raining"][:, None] & (exposure.outcome["click"] == 1)
        wet = raining & (self.draws.uniform("wet", *exposure.keys) < 0.5)
        if not self.settings.forgets:
            exposure.outcome["wet"] = wet.astype(float)


def world_with(**settings):
    scenario = Scenario(
        users=60, items=60, slate=3, candidates=10, mechanisms={f"{__name__}:Weather": settings, "content": {}}
    )
    return lambda seed: World(scenario, seed)


@pytest.mark.parametrize(
    "name", ["short-video", "peak-load", "shop", pytest.param("everything", marks=pytest.mark.integration)]
)
def test_shipped_worlds_pass(name):
    check_world(lambda seed: small(name, seed, users=60), draws=1500)


def test_a_mechanism_from_outside_is_named_by_its_path_and_passes():
    check_world(world_with())


@pytest.mark.parametrize(
    "fault, said",
    [("lies", "standard errors away"), ("forgets", "wet"), ("remembers", "changed"), ("looks_ahead", "same seed|looks ahead")],
    ids=["truth", "label", "state", "future"],
)  # fmt: skip
def test_faults_are_found(fault, said):
    with pytest.raises((AssertionError, KeyError), match=said):
        check_world(world_with(**{fault: True}))


def test_a_twin_that_moves_other_draws_is_found(monkeypatch):
    monkeypatch.setattr(Weather, "twins", {"": {"mood": 0.0}})
    from taiji.world.mechanisms.content import Content

    monkeypatch.setattr(Content, "twins", {"": {"fresh": 0.0}})
    with pytest.raises(AssertionError, match="twin content"):
        check_world(world_with())
