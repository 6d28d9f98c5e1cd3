import numpy as np

from taiji.testing import checkerboard, exposures_of, requests_of
from taiji.testing.datasets import evenly_spaced


def test_a_click_is_where_user_and_item_have_one_colour():
    board = checkerboard(users=7, items=9, rounds=2)
    rows = exposures_of(board)
    assert np.array_equal(rows["click"].to_numpy() == 1, (rows["user"] + rows["item"]).to_numpy() % 2 == 0)
    assert len(rows) == 7 * (9 // 2) * 2 and rows["user"].n_unique() == 7
    converted = rows.filter(rows["conversion"] == 1)
    assert len(converted) and (converted["item"] % 4 == 0).all() and (converted["click"] == 1).all()


def test_the_same_seed_gives_the_same_board_and_requests_come_after_it():
    first, again, other = checkerboard(seed=1), checkerboard(seed=1), checkerboard(seed=2)
    assert first.events.equals(again.events) and not first.events.equals(other.events)
    requests = requests_of(first, 3)
    assert requests.user.tolist() == [0, 1, 2] and (requests.time > first.events["time"].max()).all()


def test_evenly_spaced_positions_are_different_and_include_both_ends():
    assert evenly_spaced(100, 4) == [0, 33, 66, 99] and evenly_spaced(2, 8) == [0, 1] and evenly_spaced(0, 8) == []
