"""The towers transposed, nobody above capacity, only users who come, and a user's side that λ = 0 leaves alone."""

from dataclasses import replace

import numpy as np
import polars as pl
import pytest

from taiji.core.component import Requests
from taiji.data.user_subset import UserSubset
from taiji.models.retrieval.creator import DAY, CreatorSettings, CreatorSide, daily_activity
from taiji.models.retrieval.two_towers import TwoTowers
from taiji.testing import check_component, check_deterministic, check_retriever
from taiji.testing.datasets import requests_of

QUICK = CreatorSettings(
    width=16, hidden=16, dropout=0.0, batch=64, epochs=2, learning_rate=1e-2, seen="keep", new_days=1000, capacity=2,
    per_item=3, active=0.0,
)  # fmt: skip


@pytest.fixture(scope="module")
def fitted(board):
    return CreatorSide(QUICK).fit(board)


def later(board, shift=0):
    requests = requests_of(board)
    return Requests(requests.user, np.full(len(requests), int(board.events["time"].max()) + 1 + shift))


def test_contract(board, fitted):
    check_retriever(fitted, board)
    check_component(fitted, board, lambda model: model.retrieve(later(board), 5).items)
    check_deterministic(
        lambda seed: CreatorSide(QUICK.model_copy(update={"epochs": 1})).fit(board, seed=seed, device="cpu")
    )


def test_swapping_the_towers_transposes_the_scores(board, fitted):
    requests, items = later(board), np.array([3, 0, 7])
    np.testing.assert_array_equal(fitted.for_items(items, requests), TwoTowers.scores(fitted, requests)[:, items].T)
    product = fitted.vectors[items].astype(np.float64) @ fitted.queries(requests).astype(np.float64).T
    np.testing.assert_allclose(fitted.for_items(items, requests), product, rtol=0, atol=1e-6)


def test_matches_keep_to_the_capacity_and_are_worth_something(board, fitted):
    counts = np.bincount(fitted.matches.user, minlength=board.n_users)
    assert 0 < counts.max() <= 2 and np.bincount(fitted.matches.item).max() <= 3 and (fitted.matches.worth > 0).all()


def test_the_users_side_rises_by_lambda_and_not_before_the_match(board, fitted):
    requests = later(board)
    plain = TwoTowers.scores(fitted, requests)
    gain = np.zeros(plain.shape)
    for user, item, worth in zip(fitted.matches.user, fitted.matches.item, fitted.matches.worth):
        gain[requests.user == user, item] = QUICK.boost * worth
    np.testing.assert_array_equal(fitted.scores(requests), plain + gain)
    assert (gain > 0).any()
    off = CreatorSide(QUICK.model_copy(update={"boost": 0.0})).fit(board)
    np.testing.assert_array_equal(off.scores(requests), TwoTowers.scores(off, requests))
    early = later(board, -2)
    np.testing.assert_array_equal(fitted.scores(early), TwoTowers.scores(fitted, early))


def test_only_users_who_will_come_are_matched(board):
    end = int(board.events["time"].max())
    number = pl.int_range(pl.len()).over("user")
    daily = end - (number % 20) * DAY - pl.col("user")
    times = (
        pl.when(pl.col("user") < 8).then(daily - 40 * DAY).otherwise(daily)
    )  # the first eight came daily, and stopped
    gone = board.events.with_columns(times.cast(pl.Int64).alias("time")).sort("time")
    moved = replace(board, events=gone)
    made = CreatorSide(QUICK.model_copy(update={"active": 0.5})).fit(moved)
    assert len(made.matches.user) and (made.matches.user >= 8).all()
    active = daily_activity(moved.history, end + 1)
    assert active[8:, -1].any() and not active[:8, -30:].any()


def test_new_items_are_found_by_their_categories_and_old_ones_are_not_matched(board, tmp_path):
    rows = board.events.filter(pl.col("item") != 5)
    made = CreatorSide(QUICK.model_copy(update={"new_days": 1e-9})).fit(board, rows)
    assert made.known.sum() == board.n_items - 1 and not made.known[5]
    assert set(made.matches.item.tolist()) == {5}  # nobody has had it
    made.save(tmp_path / "creator")
    loaded = CreatorSide.load(tmp_path / "creator", board)
    np.testing.assert_array_equal(loaded.vectors, made.vectors)
    assert loaded.matches.item.tolist() == made.matches.item.tolist()


def test_the_age_of_an_item_without_a_start_is_that_of_its_first_interaction(board):
    """An end of availability alone says nothing about an item's age."""
    end = pl.lit(board.events["time"].max() + 10 * DAY)
    ending = replace(board, items=board.items.with_columns(available_until=end))
    with_end, without = CreatorSide(QUICK).fit(ending), CreatorSide(QUICK).fit(board)
    assert len(with_end.matches.item)
    assert with_end.matches.item.tolist() == without.matches.item.tolist()


def test_matches_follow_their_users_to_another_dataset(board, fitted):
    last = board.n_users - 1
    back = (last - pl.col("user").cast(pl.Int64)).cast(board.users["user"].dtype).alias("user")
    turned = board.with_users(board.users.with_columns(back).sort("user"), board.events.with_columns(back))
    other = fitted.bound_to(turned)

    def pairs(model):
        return list(zip(model.matches.user.tolist(), model.matches.item.tolist()))

    assert sorted((last - user, item) for user, item in pairs(other)) == pairs(fitted)
    assert pairs(other.bound_to(board)) == pairs(fitted)


def test_a_service_with_text_ids_has_the_matches_of_integer_ids(board):
    numbered = replace(board, users=board.users.with_columns(user_id=pl.int_range(pl.len())))
    made = CreatorSide(QUICK).fit(numbered)
    served = made.bound_to(
        UserSubset(numbered, np.arange(board.n_users), [str(n) for n in range(board.n_users)], board.history)
    )
    assert len(made.matches.item) and served.matches.user.tolist() == made.matches.user.tolist()


def test_reads_nothing_at_or_after_the_end_of_its_rows(board):
    time = int(board.events["time"][400])
    late = pl.col("time") >= time
    changed = board.events.with_columns(
        pl.when(late).then(7).otherwise(pl.col("item")).cast(pl.UInt32).alias("item"),
        pl.when(late).then(1).otherwise(pl.col("click")).cast(pl.Int8).alias("click"),
    )
    other = replace(board, events=changed)
    first, second = (
        CreatorSide(QUICK.model_copy(update={"epochs": 1})).fit(data, data.events.filter(pl.col("time") < time))
        for data in (board, other)
    )
    requests = Requests(np.arange(8), np.full(8, time))
    np.testing.assert_array_equal(first.scores(requests), second.scores(requests))
    assert first.version == second.version and len(first.matches.user)
