"""One request per user of a period, and its targets."""

import numpy as np
import polars as pl

from taiji.cascade.requests import period_requests


def test_first_event_of_the_period_and_everything_taken_from_then_on(board):
    start = int(board.events["time"][900])
    requests, targets = period_requests(board, start, 100, seed=0, at="first")
    later = board.events.filter(pl.col("time") >= start)
    for row, (user, time) in enumerate(zip(requests.user, requests.time)):
        own = later.filter(pl.col("user") == int(user))
        assert time == own["time"].min()
        wanted = own.filter(pl.col("click") == 1)["item"].unique().sort().to_list()
        assert targets.items[targets.offsets[row] : targets.offsets[row + 1]].tolist() == wanted


def test_horizon_sample_and_new_items(board):
    start = int(board.events["time"][300])
    everything, wide = period_requests(board, start, 100, seed=0)
    few, _ = period_requests(board, start, 5, seed=0)
    again, _ = period_requests(board, start, 5, seed=0)
    assert len(few) == 5 and (few.user == again.user).all() and np.isin(few.user, everything.user).all()
    _, near = period_requests(board, start, 100, seed=0, horizon_days=5)
    assert 0 < len(near.items) < len(wide.items)
    asked, fresh = period_requests(board, start, 100, seed=0, new_only=True)
    for row in range(len(asked)):
        known, _ = board.history.before(int(asked.user[row]), int(asked.time[row]))
        own = fresh.items[fresh.offsets[row] : fresh.offsets[row + 1]]
        assert len(own) and not np.isin(own, known).any()


def test_a_drawn_event_has_only_what_follows_as_targets(board):
    start = int(board.events["time"][300])
    requests, targets = period_requests(board, start, 100, seed=3)
    own = board.events.filter(pl.col("time") >= start)
    moved = 0
    for row, (user, time) in enumerate(zip(requests.user, requests.time)):
        mine = own.filter(pl.col("user") == int(user))
        assert time in mine["time"].to_list()
        moved += time > mine["time"].min()
        wanted = mine.filter((pl.col("click") == 1) & (pl.col("time") >= time))["item"].unique().sort().to_list()
        assert targets.items[targets.offsets[row] : targets.offsets[row + 1]].tolist() == wanted
    assert moved > len(requests) / 2
