"""Items: topics, quality, price, duration, creator, birth and death, and a title that reveals an adjustable part of the
topic."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cached_property
from typing import Any, ClassVar

import numpy as np
import polars as pl
from numpy.typing import NDArray
from pydantic import Field

from taiji.core.settings import Settings as Base
from taiji.data.availability import FROM, UNTIL
from taiji.world import grammar
from taiji.world.draws import Draws
from taiji.world.exposure import Exposure
from taiji.world.laws import unit
from taiji.world.mechanism import Ground, Mechanism
from taiji.world.world_time import to_micros

Array = NDArray[Any]


class ContentSettings(Base):
    """Settings of ``content``."""

    topics: int = Field(default=16, ge=2, le=16)
    """Number of topics in the world."""
    main: float = Field(default=0.8, ge=0, le=1)
    """Weight of an item's main topic; its second topic gets the rest."""
    text_signal: float = Field(default=0.9, ge=0, le=1)
    """Probability that a word of the title names one of the item's topics; the other words name any topic. With 0,
    titles are uninformative."""
    words: int = Field(default=2, ge=1, le=8)
    """Number of topic words in a title."""
    quality: float = Field(default=0.4, ge=0)
    """Standard deviation of an item's general quality, on the interest scale."""
    price: float = Field(default=15.0, gt=0)
    """Median price."""
    duration: float = Field(default=40.0, gt=0)
    """Median duration in seconds."""
    spread: float = Field(default=0.6, ge=0)
    """Standard deviation of prices and durations, on the log scale."""
    creators: int = Field(default=200, ge=1)
    """Number of creators; each item has one."""
    specialised: float = Field(default=0.5, ge=0, le=1)
    """Probability that an item is about its creator's own topic."""
    fresh: float = Field(default=0.4, ge=0, le=1)
    """Share of the items born during the simulation; the others exist from the start."""
    life: float | None = Field(default=None, gt=0)
    """Mean lifetime of an item in days; null for an unlimited one."""


class Content(Mechanism[ContentSettings]):
    """Items; state arrays are constant except ``born``, which the mechanism ``creators`` changes."""

    Settings = ContentSettings
    twins: ClassVar = {"": {"text_signal": 0.0}, "text": {"text_signal": 0.0}, "quality": {"quality": 0.0}}

    def __init__(self, settings: ContentSettings, ground: Ground, draws: Draws) -> None:
        super().__init__(settings, ground, draws)
        n, item = ground.items, np.arange(ground.items)
        self.creator = draws.integers("creator", settings.creators, item)
        own = draws.integers("creator topic", settings.topics, np.arange(settings.creators))
        any_topic = draws.integers("topic", settings.topics, item)
        specialised = draws.uniform("specialised", item) < settings.specialised
        self.main = np.where(specialised, own[self.creator], any_topic)
        other = draws.integers("second topic", settings.topics - 1, item)
        self.second = (self.main + 1 + other) % settings.topics
        weights = np.zeros((n, settings.topics))
        weights[item, self.main] = settings.main
        weights[item, self.second] += 1 - settings.main
        self.mixture = weights
        self.topics = unit(weights)
        self.quality = settings.quality * draws.normal("quality", item)
        self.price = np.round(settings.price * np.exp(settings.spread * draws.normal("price", item)), 2)
        self.duration = np.round(settings.duration * np.exp(settings.spread * draws.normal("duration", item)), 1)
        self.duration = np.maximum(self.duration, 1.0)
        self.kind = draws.integers("kind", len(grammar.VIDEO_KINDS), item)
        self.begin()

    def begin(self) -> None:
        """Set births and deaths to the planned ones."""
        s, item = self.settings, np.arange(self.ground.items)
        fresh = self.draws.uniform("fresh", item) < s.fresh
        self.born = np.where(fresh, self.draws.uniform("born", item) * self.ground.days, 0.0)
        life = np.inf if s.life is None else s.life * self.draws.exponential("life", item)
        self.life = np.broadcast_to(np.asarray(life, dtype=np.float64), item.shape)

    @property
    def dies(self) -> Array:
        """(items,) day from which each item is unavailable."""
        return self.born + self.life

    def available(self, slot: int) -> Array:
        """Return the items that exist during the whole slot."""
        start = slot * self.ground.slot_days
        return (self.born <= start) & (start + self.ground.slot_days <= self.dies)

    def place(self, exposure: Exposure) -> None:
        """Add the items' topics."""
        exposure.item_vector = self.topics[exposure.safe_items]

    def shape(self, exposure: Exposure) -> None:
        """Add quality to the interest."""
        exposure.add("interest", self.quality[exposure.safe_items])

    @cached_property
    def told(self) -> Array:
        """(items, words) topic named by each word of the title."""
        s = self.settings
        item, word = np.arange(self.ground.items)[:, None], np.arange(s.words)[None, :]
        second = self.draws.uniform("word's topic", item, word) >= s.main
        own = np.where(second, self.second[:, None], self.main[:, None])
        stray = self.draws.integers("stray word", s.topics, item, word)
        return np.where(self.draws.uniform("word tells", item, word) < s.text_signal, own, stray)

    @cached_property
    def text_topics(self) -> Array:
        """(items, topics) topics as inferred from the titles: word shares, scaled to length 1."""
        counts = (self.told[:, :, None] == np.arange(self.settings.topics)).sum(axis=1)
        return unit(counts.astype(np.float64))

    @cached_property
    def titles(self) -> list[str]:
        """Title of each item."""
        word = np.arange(self.settings.words)[None, :]
        variant = self.draws.integers("word", len(grammar.TOPICS[0]), np.arange(self.ground.items)[:, None], word)
        return grammar.titles(self.told, variant, self.kind, self.ground.domain)

    @property
    def text_share(self) -> float:
        """Share of the topics' variance that titles explain: R² of a regression of topics (items, topics) on the title
        words."""
        told = self.text_topics - self.text_topics.mean(axis=0)
        topics = self.topics - self.topics.mean(axis=0)
        slope = np.linalg.lstsq(told, topics, rcond=None)[0]
        return float(1 - np.square(topics - told @ slope).sum() / np.square(topics).sum())

    def item_columns(self) -> Mapping[str, Any]:
        """Return price, duration and creator, and, if items come and go, the times between which they can be shown."""
        columns: dict[str, Any] = {
            "price": self.price,
            "duration": self.duration,
            "creator": [f"c{c}" for c in self.creator.tolist()],
        }
        for name, days, bounded in ((FROM, self.born, self.born > 0), (UNTIL, self.dies, np.isfinite(self.dies))):
            if bounded.any():
                times = to_micros(np.where(np.isfinite(days), days, 0.0))
                known = [t if there else None for t, there in zip(times.tolist(), bounded.tolist())]
                columns[name] = pl.Series(name, known, dtype=pl.Int64).cast(pl.Datetime("us"))
        return columns
