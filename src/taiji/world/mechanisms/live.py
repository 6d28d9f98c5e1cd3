"""Live rooms: on air some hours per day, with a topic that moves in every slot, and a description that follows it."""

from __future__ import annotations

from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from taiji.core.settings import Settings as Base
from taiji.world import grammar
from taiji.world.draws import Draws
from taiji.world.exposure import Exposure
from taiji.world.laws import drift
from taiji.world.mechanism import Ground, Mechanism
from taiji.world.mechanisms.content import Content

Array = NDArray[Any]


class LiveSettings(Base):
    """Settings of ``live``."""

    share: float = Field(default=1.0, ge=0, le=1)
    """Share of the items that are rooms."""
    hours: float = Field(default=6.0, gt=0, le=24)
    """Hours per day that a room is on air, from its own start time."""
    turn: float = Field(default=3.0, ge=0)
    """Rate per day at which a room's topic approaches a random goal, drawn for each room and day: in a slot of t days,
    the topic covers ``turn`` · t (at most 1) of the distance."""
    drift: float = Field(default=0.8, ge=0)
    """Standard deviation of the topic's random walk per day."""


class Live(Mechanism[LiveSettings]):
    """Topics of rooms (items, topics) by slot; they move independently of viewers."""

    Settings = LiveSettings
    after = ("content", "taste")
    twins: ClassVar = {"": {"turn": 0.0, "drift": 0.0}}
    bias = ("room_text",)

    def __init__(self, settings: LiveSettings, ground: Ground, draws: Draws) -> None:
        super().__init__(settings, ground, draws)
        self.content = ground.need(Content, "live")
        item = np.arange(ground.items)
        self.room = draws.uniform("room", item) < settings.share
        self.opens = draws.uniform("opens", item)
        self._start = self.content.topics
        self._topics, self._slot = self._start, 0

    def topics_at(self, slot: int) -> Array:
        """Return the topics (items, topics) of all items in a slot; only those of rooms change over time."""
        s, item = self.settings, np.arange(self.ground.items)
        if slot < self._slot:
            self._topics, self._slot = self._start, 0
        while self._slot < slot:
            self._slot += 1
            if not (s.turn or s.drift):
                continue
            topic = np.arange(self._start.shape[1])
            day = int(self._slot * self.ground.slot_days)
            goal = 1.0 * (topic == self.draws.integers("topic of the day", len(topic), item, day)[:, None])
            noise = self.draws.normal("drift", item[:, None], self._slot, topic)
            moved = drift(self._topics, goal, noise, pull=s.turn, spread=s.drift, step=self.ground.slot_days)
            self._topics = np.where(self.room[:, None], moved, self._topics)
        return self._topics

    def available(self, slot: int) -> Array:
        """Return the rooms on air during the whole slot, and all items that are not rooms."""
        length = self.ground.slot_days
        since = (slot * length - self.opens) % 1.0
        return ~self.room | (since + length <= max(self.settings.hours / 24, length) + 1e-9)

    def place(self, exposure: Exposure) -> None:
        """Replace the topics by the current ones."""
        exposure.item_vector = self.topics_at(exposure.slot)[exposure.safe_items]

    def draw(self, exposure: Exposure) -> None:
        """Write descriptions of the shown items to ``exposure.display``."""
        items, place = np.unique(exposure.safe_items, return_inverse=True)
        texts = np.array(self.descriptions(items, exposure.slot), dtype=object)
        exposure.display["room_text"] = texts[place].reshape(exposure.shape)

    def descriptions(self, items: Array, slot: int) -> list[str]:
        """Return descriptions of items (N,) in a slot.

        With probability ``text_signal``, a word names one of the item's current topics, otherwise any topic.
        """
        content = self.content.settings
        word = np.arange(content.words)[None, :]
        keys = (items[:, None], slot, word)
        weights = np.repeat(np.square(self.topics_at(slot)[items])[:, None], content.words, axis=1)
        own = self.draws.choice("word's topic", weights, *keys)
        stray = self.draws.integers("stray word", content.topics, *keys)
        told = np.where(self.draws.uniform("word tells", *keys) < content.text_signal, own, stray)
        return grammar.words_of(told, self.draws.integers("word", len(grammar.TOPICS[0]), *keys))
