"""Settings of the intervals, and of the simulated A/B test."""

from __future__ import annotations

from pydantic import Field

from taiji.ranking.settings import RankerSettings
from taiji.settings import Settings


class EvaluationSettings(Settings):
    """How figures get their intervals."""

    resamples: int = Field(default=1000, ge=10)
    """Bootstrap resamples of users."""
    level: float = Field(default=0.95, gt=0, lt=1)
    """Coverage of every interval."""
    grounding_threshold: float = Field(default=0.3, ge=-1, le=1)
    """Cosine below which an answer counts as poorly grounded (the reward is looked up all the same)."""


class ShopSettings(Settings):
    """The synthetic shop."""

    users: int = Field(default=1600, ge=20)
    """Users over the whole time; they come and go, so most users of the last period are new."""
    promoted: int = Field(default=30, ge=8)
    """Items that are shown, a few at a time."""
    tail: int = Field(default=6000, ge=50)
    """Items that are found without being shown; each is bought so rarely that only its text says what it is."""
    days: int = Field(default=120, ge=8)
    """Length of the log."""
    finds: float = Field(default=12.0, gt=0)
    """Mean of the tail items a user buys, before and while being shown something."""
    visits: float = Field(default=4.0, gt=0)
    """Mean of the requests a user makes beyond the first."""
    shown: int = Field(default=10, ge=2)
    """Items a request shows, drawn at random."""
    telling_text: bool = True
    """Whether an item's title tells its hidden theme; ``false`` is the null twin: the same events, titles shuffled."""


class ABTestSettings(Settings):
    """What ``taiji abtest`` simulates."""

    shop: ShopSettings = ShopSettings()
    ranker: RankerSettings = RankerSettings()
    """Of both arms."""
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
