from __future__ import annotations

from datetime import datetime, timedelta

import numpy as np
import polars as pl
from hypothesis import given, settings
from hypothesis import strategies as st

from taiji.data.sampling import popular_non_clicks, sample_users


def log_of(users, spread=1):
    """User k is active at hour k only, so the middle of activity is known."""
    return pl.DataFrame(
        {
            "user_id": np.repeat(np.arange(users), spread),
            "timestamp": [
                datetime(2020, 1, 1) + timedelta(hours=k) for k in np.repeat(np.arange(users), spread).tolist()
            ],
        }
    )


@settings(deadline=None, max_examples=40)
@given(st.integers(1, 50), st.integers(1, 60), st.integers(0, 99))
def test_a_sample_of_users_is_spread_evenly_over_time(users, count, seed):
    kept = sample_users(log_of(users), count, seed).to_list()
    assert kept == sorted(set(kept)) and len(kept) == min(users, count)
    assert kept == sample_users(log_of(users).reverse(), count, seed).to_list()
    if count < users:  # exactly one in each of `count` equal shares of the time
        step = users / count
        assert all(step * place - 1 < user < step * (place + 1) for place, user in enumerate(kept))


def test_none_keeps_all_users():
    assert sample_users(log_of(7), None, 0).to_list() == list(range(7))


def test_seeds_differ():
    assert len({tuple(sample_users(log_of(1000), 3, seed).to_list()) for seed in range(5)}) > 1


@settings(deadline=None, max_examples=40)
@given(
    st.lists(st.tuples(st.integers(0, 4), st.integers(0, 9), st.integers(0, 30)), min_size=1, max_size=60),
    st.integers(1, 4),
    st.integers(1, 20),
    st.integers(0, 9),
)
def test_non_clicks_were_popular_before_and_untouched_by_then(rows, per_row, window, seed):
    rows = sorted(rows, key=lambda row: row[2])
    users, items, times = (np.array(column, np.int64) for column in zip(*rows))
    at, drawn, shuffles = popular_non_clicks(users, items, times, per_row, seed, window=window)
    assert (np.diff(at) >= 0).all() and shuffles.shape == (len(rows), per_row + 1) and np.isfinite(shuffles).all()
    for row in range(len(rows)):
        mine = drawn[at == row].tolist()
        earlier = int((times < times[row]).sum())
        recent = set(items[max(0, earlier - window) : earlier].tolist())
        touched = {item for user, item, time in rows if user == users[row] and time <= times[row]}
        assert len(mine) <= per_row and len(set(mine)) == len(mine)
        assert set(mine) <= recent - touched


def test_draws_follow_recent_popularity():
    """Three quarters of the past are item 0, a quarter is item 1: so are single draws, within five standard errors."""
    size = 4000
    items = np.concatenate([np.where(np.arange(size) % 4 < 3, 0, 1), np.full(size, 2)])
    users, times = np.arange(2 * size), np.concatenate([np.arange(size), np.full(size, size)])
    at, drawn, _ = popular_non_clicks(users, items, times, 1, 0, window=size)
    late = drawn[at >= size]
    assert len(late) == size and abs((late == 0).mean() - 0.75) < 5 * np.sqrt(0.75 * 0.25 / size)


def test_rows_left_out_change_no_draw_of_the_others():
    random = np.random.default_rng(0)
    users, items, times = random.integers(0, 9, 500), random.integers(0, 50, 500), np.sort(random.integers(0, 400, 500))
    keep = users < 3
    at, drawn, shuffles = popular_non_clicks(users, items, times, 3, 7, window=100)
    some_at, some_drawn, some = popular_non_clicks(users, items, times, 3, 7, window=100, keep=keep)
    np.testing.assert_array_equal(some_at, at[keep[at]])
    np.testing.assert_array_equal(some_drawn, drawn[keep[at]])
    np.testing.assert_array_equal(some[keep], shuffles[keep])
    assert np.isnan(some[~keep]).all()
