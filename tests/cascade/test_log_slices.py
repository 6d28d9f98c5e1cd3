"""Facts of a log and its slices, by hand."""

import numpy as np
import pytest

from taiji.cascade.log_slices import facts_of, head_of, past_counts, slices_of
from taiji.cascade.requests import period_requests


def test_the_head_is_the_fewest_items_that_hold_half():
    assert head_of(np.array([1, 6, 2, 3])).tolist() == [False, True, False, False]
    assert head_of(np.array([2, 2, 2])).tolist() == [True, True, False], "of equals the smaller numbers"
    assert not head_of(np.zeros(3)).any()


def test_facts_are_those_of_the_events(board):
    start = int(board.events["time"][1000])
    requests, targets = period_requests(board, start, 100, seed=0)
    facts, counts = facts_of(board, requests, targets, start), past_counts(board, start)
    past = board.events.filter(board.events["time"] < start)
    assert facts.interactions == counts.sum() == int((past["click"] == 1).sum())
    assert facts.per_item == pytest.approx(facts.interactions / board.n_items)
    assert facts.unknown_targets == pytest.approx(np.mean(counts[targets.items] == 0))
    had = []
    for row, (user, time) in enumerate(zip(requests.user, requests.time)):
        before = board.events.filter(
            (board.events["user"] == user) & (board.events["time"] < time) & (board.events["click"] == 1)
        )
        mine = targets.items[targets.offsets[row] : targets.offsets[row + 1]]
        had += np.isin(mine, before["item"].to_numpy()).tolist()
    assert facts.had_before == pytest.approx(np.mean(had))
    assert facts.head_targets == pytest.approx(np.mean(head_of(counts)[targets.items]))


def test_slices_part_requests_by_history_and_targets_by_popularity(board):
    start = int(board.events["time"][300])
    requests, targets = period_requests(board, start, 100, seed=0)
    parts = {name: (rows, wanted) for name, rows, wanted in slices_of(board, requests, targets, start)}
    known = board.history.count_before(requests.user, requests.time)
    by_history = {name: value for name, value in parts.items() if "targets" not in name}
    assert sorted(np.concatenate([rows for rows, _ in by_history.values()])) == list(range(len(requests)))
    rows, wanted = parts["5 to 19 past interactions"]
    assert ((known[rows] >= 5) & (known[rows] <= 19)).all()
    first = targets.items[targets.offsets[rows[0]] : targets.offsets[rows[0] + 1]]
    assert wanted.items[: wanted.offsets[1]].tolist() == first.tolist()
    head, tail = parts["targets among the most popular"][1], parts["targets outside the most popular"][1]
    assert len(head.items) + len(tail.items) == len(targets.items)
    assert not np.isin(head.items, tail.items).any()
