"""Creators upload by what exposure they got, and nothing is lost in counting."""

from __future__ import annotations

import numpy as np
from tests.world.small import coin_surprise, small

from taiji.world.laws import sigmoid
from taiji.world.log import run
from taiji.world.mechanisms.content import Content
from taiji.world.mechanisms.creators import Creators
from taiji.world.policies import RankingPolicy, make_policy


def world(**changes):
    base = small("creators", users=150, items=1200, candidates=100)
    settings = base.scenario.model_dump()["mechanisms"] | {"content": {"creators": 60}}
    return type(base)(base.scenario, 0, mechanisms=settings, **changes)


class Favourites(RankingPolicy):
    """Shows the first creators to everybody."""

    def __init__(self, world):
        super().__init__(world)
        self.creator = world.find(Content).creator

    def scores(self, observation):
        return -1.0 * self.creator[observation.candidates.items]


def test_exposures_and_uploads_are_conserved():
    found = world()
    creators, content = found.find(Creators), found.find(Content)
    shown = sum(e.shown.sum() for e in run(found, make_policy("popular@0.5", found), 6))
    assert creators.total.sum() == shown == found.public.exposures.sum()
    born = np.isfinite(content.born)
    np.testing.assert_array_equal(np.bincount(content.creator[born], minlength=60), creators.uploaded)
    assert (creators.uploaded <= creators.count).all() and creators.uploads.sum() > 20
    assert (content.born[born] <= 6).all()
    np.testing.assert_array_equal(creators.reach > 0, creators.total > 0)
    assert (creators.reach <= creators.total).all()


def test_uploads_follow_the_chance_and_ignore_exposure_in_the_twin():
    found = world()
    creators = found.find(Creators)
    creators.recent = np.linspace(0, 50, 60)
    np.testing.assert_allclose(
        creators.upload_chance(), sigmoid(-1.5 + 1.5 * np.log1p(creators.recent / creators.recent.mean()))
    )
    hits, chances = [], []
    for day in range(1, 5):
        creators.today = np.linspace(0, 50, 60)
        creators.recent = np.linspace(0, 50, 60)
        room = creators.uploaded < creators.count
        before = creators.uploaded.copy()
        chances.append(creators.upload_chance()[room])
        creators.advance(day * 12)
        hits.append((creators.uploaded - before)[room])
    assert coin_surprise(np.concatenate(hits), np.concatenate(chances)) < 4
    twin = found.twin("creators").find(Creators)
    twin.recent = np.linspace(0, 50, 60)
    np.testing.assert_allclose(twin.upload_chance(), sigmoid(-1.5))


def test_a_policy_that_spreads_exposure_makes_more_creators_upload():
    few, many = world(), world()
    for place, policy in ((few, Favourites(few)), (many, make_policy("random", many))):
        assert sum(len(e.user) for e in run(place, policy, 5)) > 300
    assert many.find(Creators).reach.min() > few.find(Creators).reach.min()
    assert many.find(Creators).uploads.sum() > 1.2 * few.find(Creators).uploads.sum()
