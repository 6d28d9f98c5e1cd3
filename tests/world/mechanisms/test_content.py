"""Titles carry topics by the set amount, and nothing in the twin."""

from __future__ import annotations

import numpy as np
import pytest
from tests.world.small import coin_surprise, small, surprise

from taiji.world.mechanisms.content import Content


def content(**changes) -> Content:
    base = small("mall")
    settings = {**base.scenario.model_dump()["mechanisms"], "content": {"words": 4, **changes}}
    return type(base)(base.scenario, 0, items=25_000, users=2, mechanisms=settings).find(Content)


def test_words_name_an_items_topics_as_often_as_said():
    """A word is of the item's topics with probability signal + (1 − signal) · 2 / topics: 10^5 words."""
    found = content(text_signal=0.7)
    own = (found.told == found.main[:, None]) | (found.told == found.second[:, None])
    assert own.size == 100_000
    assert coin_surprise(own, np.full(own.shape, 0.7 + 0.3 * 2 / 16)) < 4
    main = found.told == found.main[:, None]
    assert coin_surprise(main, np.full(own.shape, 0.7 * 0.8 + 0.3 / 16)) < 4


@pytest.mark.parametrize("signal", [0.0, 0.5, 1.0], ids=["twin", "half", "all"])
def test_the_share_of_topics_that_titles_tell_grows_with_the_signal(signal):
    share = content(text_signal=signal).text_share
    assert {0.0: share < 0.01, 0.5: 0.1 < share < 0.5, 1.0: share > 0.6}[signal]


def test_items_are_what_the_settings_say():
    found = content(fresh=0.3, life=4.0, specialised=0.0)
    n, horizon = found.ground.items, found.ground.days
    assert surprise(np.bincount(found.main, minlength=16), np.full(16, n / 16)) < 4
    assert (found.second != found.main).all()
    assert coin_surprise(found.born > 0, np.full(n, 0.3)) < 4
    assert found.born.max() < horizon
    assert found.life.mean() == pytest.approx(4, rel=4 / np.sqrt(n))
    assert np.median(found.duration) == pytest.approx(40, rel=0.03)
    assert np.log(found.price).std() == pytest.approx(0.6, rel=0.03)


def test_only_what_lives_through_a_slot_can_be_shown():
    found = content(life=3.0)
    slot = 5 * 12
    start, end = 5.0, 5.0 + found.ground.slot_days
    np.testing.assert_array_equal(found.available(slot), (found.born <= start) & (found.dies >= end))
    assert 0 < found.available(slot).sum() < found.ground.items
