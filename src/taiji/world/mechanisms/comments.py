"""Comments in a panel below an item, each about the item's topic or a random topic.

Readers who like the comments' topics open the panel more often and stay longer. Some of them click a comment.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from taiji.core.settings import Settings as Base
from taiji.data.tasks import Task
from taiji.world import grammar
from taiji.world.draws import Draws
from taiji.world.exposure import Exposure
from taiji.world.laws import sigmoid
from taiji.world.mechanism import Ground, Mechanism
from taiji.world.mechanisms.content import Content
from taiji.world.mechanisms.taste import Taste

Array = NDArray[Any]


class CommentsSettings(Base):
    """Settings of ``comments``."""

    count: int = Field(default=6, ge=1, le=20)
    """Number of comments per item."""
    about: float = Field(default=0.6, ge=0, le=1)
    """Probability that a comment is about its item's main topic; the other comments are about any topic."""
    match: float = Field(default=3.0, ge=0)
    """Attraction of a comment for a user who likes only its topic."""
    popularity: float = Field(default=0.5, ge=0)
    """Standard deviation of comments' general attraction."""
    opens: float = -1.5
    """Logit of the probability that the panel is opened if its mean attraction is 0."""
    seconds: float = Field(default=10.0, gt=0)
    """Mean dwell time, in seconds, in a panel whose mean attraction is 0."""
    stay: float = Field(default=0.6, ge=0)
    """Increase of the log dwell time per unit of mean attraction."""
    clicks: float = Field(default=0.2, ge=0, le=1)
    """Probability that a user in the panel clicks a comment."""


class Comments(Mechanism[CommentsSettings]):
    """Comments of items. State: topic and popularity of each comment, (items, count), both constant."""

    Settings = CommentsSettings
    after = ("content", "taste", "live", "surfaces", "funnel")
    twins: ClassVar = {"": {"match": 0.0, "popularity": 0.0}, "match": {"match": 0.0}}
    truths = ("comment_seconds", "comment_click")
    labels = (
        Task(name="comment_seconds", kind="duration"),
        Task(name="comment_click"),
        Task(name="comment_place", kind="count", weight=0.0),
    )

    def __init__(self, settings: CommentsSettings, ground: Ground, draws: Draws) -> None:
        super().__init__(settings, ground, draws)
        content = ground.need(Content, "comments")
        ground.need(Taste, "comments")
        item, comment = np.arange(ground.items)[:, None], np.arange(settings.count)[None, :]
        stray = draws.integers("topic", content.settings.topics, item, comment)
        about = draws.uniform("about", item, comment) < settings.about
        self.topics = np.where(about, content.main[:, None], stray)
        self.popularity = settings.popularity * draws.normal("popularity", item, comment)

    def attraction(self, exposure: Exposure) -> Array:
        """Return (B, L, count) attraction of each comment for the reader."""
        items = exposure.safe_items
        if exposure.user_vector is None:
            return self.popularity[items]
        rows = np.arange(len(exposure.user))[:, None, None]
        liking = exposure.user_vector[rows, self.topics[items]]
        return np.asarray(self.settings.match * liking + self.popularity[items])

    def laws(self, exposure: Exposure) -> tuple[Array, Array, Array]:
        """Return attraction (B, L, count), probability of opening given a view, and mean seconds given opening."""
        s = self.settings
        attraction = self.attraction(exposure)
        mean = attraction.mean(axis=-1)
        return attraction, sigmoid(s.opens + mean), s.seconds * np.exp(s.stay * mean)

    def expect(self, exposure: Exposure) -> None:
        """Set the expectations of dwell time and clicks."""
        _, opens, seconds = self.laws(exposure)
        opened = exposure.expected["view"] * opens
        exposure.expected["comment_seconds"] = opened * seconds
        exposure.expected["comment_click"] = opened * self.settings.clicks

    def draw(self, exposure: Exposure) -> None:
        """Draw openings of the panel, dwell times, and clicked comments."""
        attraction, opens, seconds = self.laws(exposure)
        opened = (exposure.outcome["view"] == 1) & (self.draws.uniform("opens", *exposure.keys) < opens)
        stay = seconds * self.draws.exponential("stay", *exposure.keys)
        clicked = opened & (self.draws.uniform("clicks", *exposure.keys) < self.settings.clicks)
        weights = np.exp(attraction - attraction.max(axis=-1, keepdims=True))
        place = self.draws.choice("which", weights, *exposure.keys)
        exposure.outcome["comment_seconds"] = np.where(opened, stay, 0.0)
        exposure.outcome["comment_click"] = clicked.astype(np.float64)
        exposure.outcome["comment_place"] = np.where(clicked, place, np.nan)

    def item_columns(self) -> Mapping[str, Any]:
        """Return the comments of each item."""
        item, comment = np.arange(self.ground.items)[:, None], np.arange(self.settings.count)[None, :]
        variant = self.draws.integers("word", len(grammar.TOPICS[0]), item, comment)
        opinion = self.draws.integers("opinion", len(grammar.OPINIONS), item, comment)
        words = np.array(grammar.words_of(self.topics.reshape(-1, 1), variant.reshape(-1, 1)), dtype=object)
        opinions = np.array(grammar.OPINIONS, dtype=object)[opinion]
        return {"comments": (opinions + " " + words.reshape(opinion.shape)).tolist()}
