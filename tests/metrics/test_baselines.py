"""Baselines against counting by hand, and blind to the future."""

from __future__ import annotations

import numpy as np
import polars as pl
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.small_shops import build, examples

from taiji.metrics.baselines import DECAY, REACH, baselines, co_occurrence, popularity

LOG = [(0, 0, 1), (0, 2, 2), (0, 0, 3), (1, 0, 1), (1, 1, 2), (1, 3, 9), (2, 2, 1), (2, 4, 2), (2, 4, 8)]


def by_name(dataset, rows, **options):
    return {baseline.name: baseline for baseline in baselines(dataset, rows, **options)}


def test_popularity_counts_what_was_bought_before():
    rows = examples([(0, 5, 3), (0, 1, 3), (0, 2, 3)])
    found = popularity(build(LOG), rows, 3)
    # before day 5: item 0 three times, 2 twice, then 1 and 4 once (the lower number first); before day 1: nothing
    assert found.tolist() == [[0, 2, 1], [-1, -1, -1], [0, 2, -1]]


def test_popularity_leaves_out_what_the_user_had():
    baseline = by_name(build(LOG), examples([(0, 5, 3)]), size=3)["popularity"]
    assert baseline.items.tolist() == [[1, 4, -1]]
    assert baseline.levels.tolist() == [["FOOD", "FRUIT", "PEARS"]]


def test_own_favourite_is_the_most_frequent_then_the_newest():
    found = by_name(build(LOG), examples([(0, 4, 3), (0, 3, 3), (2, 3, 0), (2, 1, 0)]))["own favourite"]
    assert found.items.ravel().tolist() == [0, 2, 4, -1]
    assert found.levels[3].tolist() == [None, None, None]


def test_own_category_ignores_missing_levels_and_names_no_item():
    found = by_name(build(LOG), examples([(2, 9, 0)]))["own category"]
    assert found.items is None
    assert found.levels.tolist() == [["HOME", "BREAD", "RYE"]]


def test_co_occurrence_counts_neighbours_of_the_latest_items():
    log = [(0, 0, 1), (1, 0, 1), (1, 1, 2), (2, 0, 1), (2, 3, 2), (2, 1, 3), (3, 5, 1)]
    found = co_occurrence(build(log), examples([(0, 9, 1)]), [np.array([0])], 3)
    assert found.tolist() == [[1, 3, -1]]


logs = st.lists(st.tuples(st.integers(0, 3), st.integers(0, 5), st.integers(0, 12)), min_size=4, max_size=25)


@given(logs, st.integers(1, 13))
@settings(max_examples=30, deadline=None)
def test_co_occurrence_equals_a_slow_count(log, day):
    dataset = build([(3, 0, 0), (2, 0, 0), (1, 0, 0), (0, 0, 0), *log])
    rows = examples([(0, day, 1)])
    history = dataset.history
    own = history.before(0, rows["as_of"][0])[0]
    scores = np.zeros(6)
    for user in range(4):
        items, times = history.before(user, 2**62)
        items, times = items[::-1], times[::-1]
        for a in range(len(items)):
            for b in range(len(items)):
                if 0 < abs(a - b) <= REACH and items[a] != items[b] and max(times[a], times[b]) < rows["as_of"][0]:
                    scores[items[b]] += sum(DECAY**rank for rank, item in enumerate(own[:20]) if item == items[a])
    expected = [int(i) for i in np.lexsort((np.arange(6), -np.round(scores, 9))) if scores[i] > 0]
    found = [int(i) for i in co_occurrence(dataset, rows, [np.asarray(own)], 6)[0] if i >= 0]
    assert sorted(found) == sorted(expected)
    np.testing.assert_allclose(scores[found], scores[expected], rtol=1e-9)


@given(logs, logs)
@settings(max_examples=25, deadline=None)
def test_events_at_or_after_the_moment_change_nothing(past, future):
    everyone = [(user, 0, -1) for user in range(4)]
    rows = examples([(user, 13, 0) for user in range(4)])
    before = build([*everyone, *past])
    after = build([*everyone, *past, *[(user, item, 13 + day) for user, item, day in future]])
    for a, b in zip(baselines(before, rows, size=6), baselines(after, rows, size=6)):
        assert (a.items is None and b.items is None) or (a.items == b.items).all()
        assert (a.levels == b.levels).all()


def test_lists_are_as_long_as_asked_on_a_larger_log():
    rng = np.random.default_rng(0)
    log = pl.DataFrame(
        {
            "u": rng.integers(500, size=20_000),
            "i": rng.integers(300, size=20_000),
            "d": rng.random(20_000) * 100,
        }
    ).rows()
    dataset = build([*[(u, 0, -1.0) for u in range(500)], *log], n_items=300)
    found = by_name(dataset, examples([(u, 90.0, 1) for u in range(200)]))
    assert found["co-occurrence"].items.shape == (200, 100)
    assert found["popularity"].items[:, 0].min() >= 0
