"""Settings of the ladder in a run's report, and of the simulated A/B test."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field, NonNegativeInt, PositiveInt

from taiji.core.settings import Chosen, Settings
from taiji.models.ranking.settings import GROUP, RankerSettings
from taiji.world.settings import ShopSettings

ChosenRanker = Annotated[RankerSettings, Chosen(GROUP)]
"""Settings of the ranking model named by the section's key ``model``."""


class LadderSettings(Settings):
    """Settings of the ladder at the beginning of a run's report. The ladder measures, without a language model, how
    much a ranker gains from the texts of items, and how much it would gain if a language model named each user's next
    items correctly.
    """

    logs: tuple[str, ...] = ()
    """Additional logs for the ladder, in the form of `taiji run --data`: `world:shop`, or a path."""
    rows: PositiveInt = 20_000
    """Approximate largest number of rows per log: interactions of users, and the negatives drawn for each. From a
    larger log, random interactions are used, each together with its negatives."""
    seeds: NonNegativeInt = 1
    """Number of training runs per rung; 0 omits the ladder."""


class ABTestSettings(Settings):
    """The simulation of ``taiji abtest``."""

    shop: ShopSettings = ShopSettings()
    ranker: ChosenRanker = RankerSettings()
    """Ranker of both arms; by default without pair fields, because they would give the texts to the control as well."""
    seeds: int = Field(default=3, ge=1)
    """Number of training runs per arm. The offline interval is over users and seeds; an arm ranks by the mean
    prediction of its rankers."""
    slots: int = Field(default=3, ge=1)
    """Number of items that a ranker chooses among the items offered in a request."""
    fee: float = Field(default=0.05, gt=0, le=1)
    """Share of an item's price charged for a click."""
    repeats: int = Field(default=200, ge=20)
    """Number of A/A tests, and of repetitions of the A/B test to measure its coverage and power."""
    level: float = Field(default=0.95, gt=0, lt=1)
    """Coverage of every interval."""
    resamples: int = Field(default=1000, ge=50)
    """Bootstrap resamples of the offline comparison."""
    power: float = Field(default=0.8, gt=0, lt=1)
    """Power in the sample-size calculation."""
