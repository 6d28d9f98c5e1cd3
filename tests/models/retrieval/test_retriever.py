"""Every retriever keeps the contract, finds the checkerboard's answer, comes back from disk, and reads no future."""

import tempfile
from copy import copy

import numpy as np
import polars as pl
import pytest

from taiji.core.component import Requests
from taiji.core.errors import ArtifactError, InputError
from taiji.data.availability import Availability
from taiji.data.dataset import Dataset
from taiji.data.schema import Tables
from taiji.models.retrieval.cooccurrence import Cooccurrence, CooccurrenceSettings
from taiji.models.retrieval.ease import EASE, EASESettings
from taiji.models.retrieval.item_knn import ItemKNN, ItemKNNSettings
from taiji.models.retrieval.popularity import Popularity, PopularitySettings
from taiji.models.retrieval.retriever import CatalogueRetriever, seen_items, share_of_repeats
from taiji.testing import check_component, check_retriever
from taiji.testing.datasets import requests_of

LEARNT = [
    Cooccurrence(CooccurrenceSettings(seen="keep")),
    ItemKNN(ItemKNNSettings(seen="keep", shrinkage=0)),
    EASE(EASESettings(seen="keep", regularisation=10)),
]
ALL = [*LEARNT, Popularity(), Popularity(PopularitySettings(half_life_days=2, seen="keep"))]
NAMES = [f"{type(model).__name__}-{number}" for number, model in enumerate(ALL)]


@pytest.mark.parametrize("model", ALL, ids=NAMES)
def test_contract(board, model):
    model.fit(board)
    check_retriever(model, board)
    requests = requests_of(board)
    check_component(model, board, lambda m: m.retrieve(requests, 7).items)


@pytest.mark.parametrize("model", LEARNT, ids=NAMES[: len(LEARNT)])
def test_finds_the_checkerboard(board, model):
    found = model.fit(board).retrieve(requests_of(board), 8)
    assert ((requests_of(board).user[:, None] + found.items) % 2 == 0).all()


@pytest.mark.parametrize("model", ALL, ids=NAMES)
def test_reads_nothing_at_or_after_the_request(board, model):
    time = int(board.events["time"][400])
    model.fit(board, board.events.filter(pl.col("time") < time))
    requests = Requests(np.arange(8), np.full(8, time))
    changed = board.events.with_columns(
        pl.when(pl.col("time") >= time).then(7).otherwise(pl.col("item")).cast(pl.UInt32).alias("item"),
        pl.when(pl.col("time") >= time).then(1).otherwise(pl.col("click")).cast(pl.Int8).alias("click"),
    )
    expected = model.retrieve(requests, 9)
    found = type(model)(model.settings)
    other = Dataset(board.items, board.users, changed, board.name, board.domain, event_columns=board.event_columns)
    found.fit(other, changed.filter(pl.col("time") < time))
    np.testing.assert_array_equal(found.retrieve(requests, 9).items, expected.items)


def test_unavailable_items_are_left_out(board):
    model = ItemKNN(ItemKNNSettings(seen="keep")).fit(board)
    requests = requests_of(board)
    now = int(requests.time[0])
    first, end = np.full(board.n_items, now - 10), np.full(board.n_items, now + 10)
    first[:6], end[6:9] = now + 1, now
    model.availability = Availability(first, end)
    check_retriever(model, board, available=lambda asked: model.availability.at(asked.time))
    assert set(model.retrieve(requests, 20).items.ravel().tolist()) == {-1, *range(9, 20)}


def test_seen_items_are_dropped_where_nothing_repeats(board):
    assert share_of_repeats(board.history) > 0.5 and Popularity().fit(board).keeps_seen
    once = board.history.first_touches()
    rows = pl.DataFrame(
        {
            "user": np.repeat(np.arange(board.n_users), np.diff(once.offsets)),
            "item": once.items,
            "time": once.times,
            "click": np.ones(len(once.items), np.int8),
        }
    ).sort("time")
    model = Popularity().fit(board, rows)
    assert not model.keeps_seen
    requests = requests_of(board)
    found = model.retrieve(requests, board.n_items)
    who, what = seen_items(board.history, requests)
    assert len(who) and not (found.items[who] == what[:, None]).any()


def test_a_later_catalogue_is_translated(board):
    """New items come first in the later dataset, and one is gone; what is retrieved are the same items."""
    model = Cooccurrence(CooccurrenceSettings(seen="keep")).fit(board)
    requests = requests_of(board)
    ids = board.items["item_id"].to_numpy()
    tables = Tables(
        items=pl.concat(
            [
                pl.DataFrame({"item_id": ["a new one"], "title": ["new"]}),
                board.items.filter(pl.col("item_id") != "i3")[::-1],
            ],
            how="diagonal",
        ).drop("item"),
        users=board.users.drop("user"),
        events=board.events.join(board.items.select("item", "item_id"), on="item")
        .join(board.users.select("user", "user_id"), on="user")
        .filter(pl.col("item_id") != "i3")
        .sort("event")
        .select("user_id", "item_id", pl.from_epoch("time", "us").alias("timestamp"), "click", "conversion"),
        name="later",
    )
    later = Dataset.from_tables(tables)

    def names(bound: CatalogueRetriever) -> np.ndarray:
        users = pl.DataFrame({"user_id": [f"u{n}" for n in range(8)]}).join(bound.dataset.users, on="user_id")
        asked = Requests(users["user"].to_numpy(), requests.time)
        items = bound.retrieve(asked, 30).items
        return np.where(items >= 0, bound.dataset.items["item_id"].to_numpy()[items], "")

    with tempfile.TemporaryDirectory() as folder:
        model.save(f"{folder}/m")
        found = names(CatalogueRetriever.load(f"{folder}/m", later))
    assert "i3" in ids and not (found == "i3").any() and not (found == "a new one").any()
    own = names(model)
    assert (found[:, 0] == np.where(own[:, 0] == "i3", own[:, 1], own[:, 0])).mean() > 0.7


def test_a_damaged_folder_is_one_error(board, tmp_path):
    Popularity().fit(board).save(tmp_path / "m")
    (tmp_path / "m" / "weights.safetensors").write_bytes(b"\0" * 40)
    with pytest.raises(ArtifactError, match="damaged"):
        Popularity.load(tmp_path / "m", board)
    Popularity().fit(board).save(tmp_path / "n")
    with pytest.raises(ArtifactError, match="not a EASE"):
        EASE.load(tmp_path / "n", board)


def test_nothing_to_learn_from(board):
    with pytest.raises(InputError, match="no interactions"):
        Popularity().fit(board, board.events.filter(pl.col("click") == 0))


def scored(model: CatalogueRetriever, requests: Requests, k: int) -> np.ndarray:
    """What a model answers when it scores every item."""
    slow = copy(model)
    slow.room = lambda k: -1  # type: ignore[method-assign]
    return slow.retrieve(requests, k).items


@pytest.mark.parametrize("seen", ["keep", "drop"])
@pytest.mark.parametrize("kind", [Cooccurrence, ItemKNN, Popularity, "segments"], ids=str)
def test_without_scoring_everything_the_same_items_are_found(board, kind, seen):
    users = board.users.with_columns(side=pl.Series([f"s{n % 3}" for n in range(board.n_users)]))
    board = Dataset(board.items, users, board.events, board.name, board.domain, event_columns=board.event_columns)
    if kind == "segments":
        model = Popularity(PopularitySettings(segment="side", half_life_days=1, seen=seen)).fit(board)
    else:
        model = kind(kind.Settings(seen=seen)).fit(board)
    times = np.sort(board.events["time"].to_numpy())[[5, 300, 500, -1]]
    requests = Requests(np.tile(np.arange(board.n_users), 4), np.repeat(times + 1, board.n_users))
    first, end = np.full(board.n_items, -5), np.full(board.n_items, int(times[-1]) + 10)
    first[[2, 7]], end[[4, 5]] = times[2], times[1]
    for availability in (model.availability, Availability(first, end)):
        model.availability = availability
        for k in (1, 6, 500):
            np.testing.assert_array_equal(model.retrieve(requests, k).items, scored(model, requests, k))


def test_bound_to_other_users_it_reads_their_histories_and_its_own_log(board):
    users = board.users.with_columns(side=pl.Series([f"s{n % 2}" for n in range(board.n_users)]))
    board = Dataset(board.items, users, board.events, board.name, board.domain, event_columns=board.event_columns)
    requests = requests_of(board)
    order = np.array([5, 0, 3])
    numbers = pl.DataFrame({"user": order.astype(np.uint32), "now": np.arange(3, dtype=np.uint32)})
    theirs = board.events.join(numbers, on="user").with_columns(user="now").drop("now").sort("time")
    some = board.with_users(board.users[order].with_columns(user=pl.Series(range(3), dtype=pl.UInt32)), theirs)
    for model in (
        Cooccurrence(CooccurrenceSettings(seen="drop")),
        Popularity(PopularitySettings(segment="side", half_life_days=2)),
    ):
        model.fit(board)
        asked = requests.take(order)
        expected = model.retrieve(asked, 9).items
        bound = model.bound_to(some)
        np.testing.assert_array_equal(bound.retrieve(Requests(np.arange(3), asked.time), 9).items, expected)
        assert model.dataset is board and bound.version == model.version
