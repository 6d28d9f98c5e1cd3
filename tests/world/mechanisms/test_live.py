"""Rooms are on the air some hours, and what they are about moves on."""

from __future__ import annotations

import numpy as np
import polars as pl
from tests.world.small import small

from taiji.world.grammar import TOPICS
from taiji.world.laws import dot
from taiji.world.mechanisms.live import Live


def test_each_room_is_on_the_air_its_hours():
    world = small("live")
    live = world.find(Live)
    on = np.stack([live.available(slot) for slot in range(48)])
    assert live.room.all()
    assert set((on.sum(axis=0) * 0.5).tolist()) <= {5.5, 6.0}
    assert on.mean(axis=1).min() > 0.15 and on.mean(axis=1).max() < 0.35


def test_topics_move_in_the_world_and_stand_still_in_the_twin():
    world = small("live")
    start, hour, day = (world.find(Live).topics_at(slot) for slot in (0, 2, 48))
    assert 0.9 < dot(start, hour).mean() < 0.999 and dot(start, day).mean() < 0.7
    np.testing.assert_allclose(dot(day, day), 1)
    twin = world.twin("live").find(Live)
    np.testing.assert_array_equal(twin.topics_at(48), twin.topics_at(0))
    np.testing.assert_array_equal(twin.topics_at(0), start)


def test_descriptions_tell_the_topic_of_the_moment():
    world = small("live", items=400)
    live, topic_of = world.find(Live), {word: t for t, words in enumerate(TOPICS) for word in words}
    items = np.arange(400)

    def agreement(told_at, slot):
        texts = live.descriptions(items, told_at)
        main = live.topics_at(slot).argmax(axis=1)
        return np.mean([topic_of[text.split()[0]] == topic for text, topic in zip(texts, main)])

    assert agreement(0, 0) > 0.6 and agreement(200, 200) > 0.4
    assert agreement(0, 200) < 0.2


def test_the_log_has_what_was_described_at_the_time():
    world = small("live", users=60)
    events = world.log("random", days=1).events
    texts = events.group_by("item_id").agg(pl.col("room_text").n_unique().alias("n"))
    assert texts["n"].max() > 2
