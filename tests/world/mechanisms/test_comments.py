"""Readers stay for comments of their topics, and click those."""

from __future__ import annotations

import numpy as np
from tests.world.small import coin_surprise, small, surprise

from taiji.world.mechanisms.comments import Comments

N = 40_000


def test_which_comment_is_clicked_follows_its_attraction():
    world = small("feed-with-comments", users=50)
    drawn = world.truth.simulate(np.zeros(N, dtype=int), np.zeros((N, 1), dtype=int))
    attraction = world.find(Comments).attraction(drawn)[0, 0]
    clicked = drawn.outcome["comment_click"] == 1
    counts = np.bincount(drawn.outcome["comment_place"][clicked].astype(int), minlength=6)
    assert surprise(counts, clicked.sum() * np.exp(attraction) / np.exp(attraction).sum()) < 4
    assert np.isnan(drawn.outcome["comment_place"][~clicked]).all()
    opened = drawn.outcome["comment_seconds"] > 0
    assert coin_surprise(clicked[opened], np.full(int(opened.sum()), 0.2)) < 4


def test_matching_comments_are_stayed_for_and_not_so_in_the_twin():
    world = small("feed-with-comments")
    comments = world.find(Comments)
    rng = np.random.default_rng(0)
    users, items = rng.integers(120, size=(2, 4000))
    ((_, exposure),) = world.truth._exposures(users, items[:, None], None)
    world.expect(exposure)
    rows = np.arange(4000)[:, None]
    match = exposure.user_vector[rows, comments.topics[items]].mean(axis=1)
    for twin, bound in ((world, (0.7, 1.0)), (world.twin("comments.match"), (-0.1, 0.1))):
        stay = np.log(twin.truth.expect(users, items)["comment_seconds"][:, 0])
        assert bound[0] < np.corrcoef(match, stay)[0, 1] < bound[1]


def test_texts_name_the_topics_and_hang_on_the_items():
    world = small("feed-with-comments")
    items = world.log("random", days=1).items
    assert items["comments"].list.len().unique().to_list() == [6]
    assert items["comments"].list.get(0).n_unique() > 50
