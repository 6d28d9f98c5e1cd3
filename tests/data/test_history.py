from __future__ import annotations

import dataclasses
from typing import ClassVar

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from taiji.data.history import BLOCK, History, Prices, TimeIndex


def events_of(rows):
    """Rows (user, item, time, click, price) as a dataset's events."""
    frame = pl.DataFrame(
        rows,
        schema={"user": pl.UInt32, "item": pl.UInt32, "time": pl.Int64, "click": pl.Int8, "price": pl.Float64},
        orient="row",
    )
    return frame.sort("time", "user", maintain_order=True)


def naive(events, users, as_ofs, limit):
    """The reference: one pass over the rows per question."""
    items, times = np.full((len(users), limit), -1, np.int64), np.zeros((len(users), limit), np.int64)
    rows = [row for row in events.rows() if row[3] == 1]
    for place, (user, as_of) in enumerate(zip(users, as_ofs)):
        past = [(row[1], row[2]) for row in rows if row[0] == user and row[2] < as_of][::-1][:limit]
        for column, (item, moment) in enumerate(past):
            items[place, column], times[place, column] = item, moment
    return items, times


ROWS = st.lists(
    st.tuples(st.integers(0, 3), st.integers(0, 5), st.integers(-3, 9), st.integers(0, 1), st.none()), max_size=40
)


@settings(deadline=None, max_examples=60)
@given(ROWS, st.lists(st.tuples(st.integers(0, 3), st.integers(-5, 12)), min_size=1, max_size=8), st.integers(1, 5))
def test_before_batch_is_the_naive_reference(rows, asked, limit):
    events = events_of(rows)
    history = History.from_events(events, 4)
    users, as_ofs = np.array(asked).T
    items, times = history.before_batch(users, as_ofs, limit)
    wanted = naive(events, users, as_ofs, limit)
    assert items.dtype == times.dtype == np.int64
    np.testing.assert_array_equal(items, wanted[0])
    np.testing.assert_array_equal(times, wanted[1])
    counts = history.count_before(users, as_ofs)
    for place, (user, as_of) in enumerate(asked):
        one_items, one_times = history.before(user, as_of, limit)
        assert (one_items == items[place][items[place] >= 0]).all() and (one_times < as_of).all()
        assert counts[place] == len(history.before(user, as_of)[0])


@settings(deadline=None, max_examples=60)
@given(ROWS, st.lists(st.tuples(st.integers(0, 3), st.integers(-5, 12)), min_size=1, max_size=8), st.integers(1, 5))
def test_after_batch_and_first_touches_are_the_naive_reference(rows, asked, limit):
    events = events_of(rows)
    clicks = [(user, item, time) for user, item, time, click, _ in events.rows() if click == 1]
    first: dict = {}
    for user, item, moment in clicks:
        first.setdefault((user, item), moment)
    fresh = [(user, item, time) for user, item, time in clicks if time == first[user, item]]
    history = History.from_events(events, 4)
    for view, known in ((history, clicks), (history.first_touches(), fresh)):
        items, times = view.after_batch(*np.array(asked).T, limit)
        for place, (user, as_of) in enumerate(asked):
            wanted = [(item, time) for owner, item, time in known if owner == user and time >= as_of][:limit]
            assert list(zip(items[place].tolist(), times[place].tolist(), strict=True)) == wanted + [(-1, 0)] * (
                limit - len(wanted)
            )


def test_ties_keep_the_order_of_the_events_and_padding_is_exact():
    history = History.from_events(
        events_of([(0, 5, 1, 1, None), (0, 3, 1, 1, None), (0, 4, 2, 1, None), (1, 9, 1, 0, None)]), 3
    )
    items, times = history.before_batch([0, 0, 1, 2], [2, 3, 9, 9], 4)
    np.testing.assert_array_equal(items, [[3, 5, -1, -1], [4, 3, 5, -1], [-1] * 4, [-1] * 4])
    np.testing.assert_array_equal(times, [[1, 1, 0, 0], [2, 1, 1, 0], [0] * 4, [0] * 4])


def test_an_unknown_user_is_an_index_error():
    history = History.from_events(events_of([(0, 5, 1, 1, None)]), 1)
    for user in (-1, 1):
        with pytest.raises(IndexError, match=r"\[0, 1\)"):
            history.before_batch([user], [5], 2)


class Watched(np.ndarray):
    """Times that count how often, and at how many places, they are looked at."""

    looks: ClassVar[list[int]] = []

    def take(self, indices, *arguments, **keywords):
        self.looks.append(np.size(indices))
        return np.asarray(self).take(indices, *arguments, **keywords)


def test_before_batch_is_vectorised():
    """All questions are answered together, each by halving its user's slice; the answers are those of a pass over the
    log."""
    random = np.random.default_rng(0)
    size, asked, limit = 200_000, 300, 50
    events = pl.DataFrame(
        {
            "user": random.integers(0, 2000, size),
            "item": random.integers(0, 500, size),
            "time": np.sort(random.integers(0, 10**6, size)),
            "click": np.ones(size, np.int8),
        }
    )
    history = History.from_events(events, 2000)
    users, as_ofs = random.integers(0, 2000, 10_000), random.integers(0, 10**6, 10_000)
    watched = dataclasses.replace(history, times=history.times.view(Watched))
    Watched.looks.clear()
    items, times = watched.before_batch(users, as_ofs, limit)
    rounds = int(np.diff(history.offsets).max()).bit_length()
    assert 0 < len(Watched.looks) <= (rounds + 1) * -(-len(users) // BLOCK), (
        "one gather per block and halving, and the answers"
    )
    assert sum(Watched.looks) <= len(users) * (rounds + limit) < len(users) * size / 20
    all_users, all_items, all_times = (events[name].to_numpy() for name in ("user", "item", "time"))
    for place in range(asked):
        past = np.flatnonzero((all_users == users[place]) & (all_times < as_ofs[place]))[::-1][:limit]
        padding = limit - len(past)
        np.testing.assert_array_equal(items[place], np.pad(all_items[past], (0, padding), constant_values=-1))
        np.testing.assert_array_equal(times[place], np.pad(all_times[past], (0, padding)))


def test_prices_are_the_last_strictly_before_then_the_listed_one():
    events = events_of([(0, 0, 10, 1, 2.0), (1, 0, 20, 0, 3.0), (0, 1, 5, 1, None), (1, 0, 20, 1, 4.0)])
    items = pl.DataFrame({"price": [1.5, None, None]})
    prices = Prices.from_frames(events, items)
    found = prices.before([0, 0, 0, 0, 1, 2], [10, 11, 20, 21, 99, 99])
    np.testing.assert_array_equal(found, [1.5, 2.0, 2.0, 4.0, np.nan, np.nan])
    nothing = Prices.from_frames(events.clear(), items)
    np.testing.assert_array_equal(nothing.before([0, 1], [5, 5]), [1.5, np.nan])


def test_a_time_after_everything_takes_whole_slices_and_the_newest_time_does_not_count_itself():
    index = TimeIndex(np.array([0, 2, 2, 5]), np.array([3, 9, 1, 4, 9]))
    rows = np.array([0, 1, 2])
    assert index.before(rows, np.full(3, 10))[1].tolist() == [2, 2, 5]
    assert index.before(rows, np.full(3, 9))[1].tolist() == [1, 2, 4]
    assert TimeIndex(np.array([0, 0]), np.zeros(0, np.int64)).before([0], [5])[1].tolist() == [0]
