"""Settings of the ladder in a run's report, and of the simulated A/B test."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field, NonNegativeInt, PositiveInt

from taiji.core.settings import Chosen, Settings
from taiji.models.ranking.settings import GROUP, RankerSettings
from taiji.world.settings import ShopSettings

ChosenRanker = Annotated[RankerSettings, Chosen(GROUP)]
"""Settings of the ranking model that the section's key ``model`` names."""


class LadderSettings(Settings):
    """The ladder at the head of a run's report: what text is worth to a ranker, and what a right answer would be, without a language model."""

    logs: tuple[str, ...] = ()
    """Logs to climb it on beside the run's own, as `taiji run --data` takes them: `world:shop`, a path."""
    rows: PositiveInt = 20_000
    """Candidates per log at most."""
    seeds: NonNegativeInt = 1
    """Trainings per rung; 0 leaves the ladder out."""


class ABTestSettings(Settings):
    """The simulation of ``taiji abtest``."""

    shop: ShopSettings = ShopSettings()
    ranker: ChosenRanker = RankerSettings()
    """Of both arms; without pair fields unless they are named, for they hand the texts to the control as well."""
    seeds: int = Field(default=3, ge=1)
    """Trainings of each arm; the offline interval is over users and seeds, and an arm serves the mean of its rankers."""
    slots: int = Field(default=3, ge=1)
    """Items that a ranker may choose from those a request offers."""
    fee: float = Field(default=0.05, gt=0, le=1)
    """Share of an item's price charged for a click."""
    repeats: int = Field(default=200, ge=20)
    """A/A tests, and repetitions of the A/B test that measure its coverage and power."""
    level: float = Field(default=0.95, gt=0, lt=1)
    """Coverage of every interval."""
    resamples: int = Field(default=1000, ge=50)
    """Bootstrap resamples of the offline comparison."""
    power: float = Field(default=0.8, gt=0, lt=1)
    """Of the sample-size calculation."""
