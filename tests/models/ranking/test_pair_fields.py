"""Pair fields keep the promises of fields; offline and online are the same bytes; new items have a place from their
text."""

import threading
import tracemalloc
from dataclasses import replace

import numpy as np
import polars as pl
import pytest

from taiji.core.component import Requests, Slate
from taiji.core.errors import ConfigError
from taiji.data.dataset import Dataset
from taiji.data.fields import Rows
from taiji.models.ranking import pair_fields
from taiji.models.ranking.onnx_export import onnx_inputs
from taiji.models.ranking.pair_fields import CollaborativeMatch, TextMatch, cooccurrence_match
from taiji.models.ranking.settings import RankerSettings
from taiji.models.ranking.train import train_ranker
from taiji.testing import check_field, checkerboard, exposures_of


@pytest.fixture(scope="module")
def board():
    return checkerboard(12, 10, 4)


@pytest.fixture(scope="module")
def rows(board):
    return exposures_of(board)


def fields():
    return [CollaborativeMatch(history=6, refreshes=2), TextMatch("wordllama", vector=3, history=6, refreshes=2)]


@pytest.mark.parametrize("field", fields(), ids=lambda field: field.name)
def test_promises(field, board, rows):
    check_field(field, board, rows)


@pytest.mark.parametrize("field", fields(), ids=lambda field: field.name)
def test_users_of_one_colour_agree_with_their_items(field, board, rows):
    field.fit(board, rows, int(rows["time"].max()) + 1)
    late = rows.filter(pl.col("time") > rows["time"].quantile(0.5))
    mean = field.matrix(Rows(board, late))[:, 0]
    clicked = late["click"].to_numpy() == 1
    assert mean[clicked].mean() > mean[~clicked].mean() + 0.2


@pytest.mark.parametrize("field", fields(), ids=lambda field: field.name)
def test_one_request_is_the_same_bytes_as_many_rows(field, board, rows):
    field.fit(board, rows, int(rows["time"].max()) + 1)
    whole = field.matrix(Rows(board, rows))
    rng = np.random.default_rng(0)
    for size in (1, 7, 40):
        chosen = rng.permutation(len(rows))[:size]
        assert field.matrix(Rows(board, rows[chosen])).tobytes() == whole[chosen].tobytes()


@pytest.mark.parametrize("field", fields(), ids=lambda field: field.name)
def test_events_of_one_instant_do_not_see_each_other(field, board, rows):
    now = int(rows["time"].max())
    shown = rows.filter(pl.col("time") == now)
    field.fit(board, rows, now)
    planted = board.events.filter(pl.col("time") == now).with_columns(
        item=pl.lit(3, pl.UInt32), click=pl.lit(1, pl.Int8), conversion=pl.lit(1, pl.Int8)
    )
    fuller = Dataset(board.items, board.users, pl.concat([board.events] + [planted] * 20), board.name, board.domain)
    again = type(field)(**field.options)
    again.fit(fuller, rows, now)
    assert again.matrix(Rows(fuller, shown)).tobytes() == field.matrix(Rows(board, shown)).tobytes()


def test_before_the_first_cut_nothing_is_known(board, rows):
    field = CollaborativeMatch()
    late = rows.filter(pl.col("time") > rows["time"].quantile(0.5))
    field.fit(board, late, int(rows["time"].max()) + 1)
    early = rows.filter(pl.col("time") < late["time"].min())
    assert not field.matrix(Rows(board, early)).any()


def test_refreshed_forwards_only(board, rows):
    field = CollaborativeMatch(refreshes=1)
    middle = int(rows["time"].quantile(0.5, interpolation="lower"))
    field.fit(board, rows.filter(pl.col("time") < middle), middle)
    earlier, late = rows.filter(pl.col("time") < middle), rows.filter(pl.col("time") >= middle)
    before, stale = field.matrix(Rows(board, earlier)), field.matrix(Rows(board, late))
    field.refresh(board, int(late["time"].quantile(0.5, interpolation="lower")))
    assert field.matrix(Rows(board, earlier)).tobytes() == before.tobytes()
    assert field.matrix(Rows(board, late)).tobytes() != stale.tobytes()
    with pytest.raises(ConfigError, match="later time"):
        field.refresh(board, middle)


def test_a_new_item_has_a_place_from_its_text_alone(board, rows):
    field = TextMatch("wordllama", vector=3, history=6, refreshes=2)
    field.fit(board, rows, int(rows["time"].max()) + 1)
    old = field.matrix(Rows(board, rows))
    new = board.items[:1].with_columns(
        item=pl.lit(board.n_items, pl.UInt32), item_id=pl.lit("new"), title=pl.lit("white piece 4")
    )
    later = Dataset(pl.concat([board.items, new]), board.users, board.events, board.name, board.domain)
    asked = rows.with_columns(item=pl.lit(board.n_items, pl.UInt32))
    twin = rows.with_columns(item=pl.lit(4, pl.UInt32))
    assert field.matrix(Rows(later, asked)).tobytes() == field.matrix(Rows(later, twin)).tobytes()
    assert field.matrix(Rows(later, rows)).tobytes() == old.tobytes()


def test_two_threads_may_bring_new_items_at_once(board, rows, monkeypatch):
    def with_new(name, title):
        new = board.items[:1].with_columns(
            item=pl.lit(board.n_items, pl.UInt32), item_id=pl.lit(name), title=pl.lit(title)
        )
        return Dataset(pl.concat([board.items, new]), board.users, board.events, board.name, board.domain)

    first, second = with_new("one", "white piece 4"), with_new("two", "black piece 7")
    asked = rows.with_columns(item=pl.lit(board.n_items, pl.UInt32))
    field, alone = (TextMatch("wordllama", vector=3, history=6, refreshes=2) for _ in range(2))
    for made in (field, alone):
        made.fit(board, rows, int(rows["time"].max()) + 1)
    expected = [alone.matrix(Rows(dataset, asked)).tobytes() for dataset in (first, second)]
    other = threading.Thread(target=field.numbering, args=(second,))
    hashes, calls = pair_fields._hashes, []

    def overtaken(dataset):
        """The first thread is about to write down its new item, and the second one asks."""
        calls.append(dataset)
        if calls.count(first) == 2 and not other.ident:
            other.start()
            other.join(0.1)
        return hashes(dataset)

    monkeypatch.setattr(pair_fields, "_hashes", overtaken)
    field.numbering(first)
    other.join()
    assert [field.matrix(Rows(dataset, asked)).tobytes() for dataset in (first, second)] == expected
    assert len(field.known) == board.n_items + 2


def test_left_out_where_items_have_no_texts(board, rows):
    bare = Dataset(
        board.items.with_columns(title=pl.col("item").cast(pl.String)), board.users, board.events, "bare", "shop"
    )
    field = TextMatch("wordllama")
    field.fit(bare, rows, int(rows["time"].max()) + 1)
    assert field.labels == () and field.matrix(Rows(bare, rows)).shape == (len(rows), 0)


def test_arguments_are_checked():
    with pytest.raises(ConfigError, match="history"):
        TextMatch(history=0)


def test_cooccurrence_by_hand():
    neighbours = np.array([[1, 2], [0, -1], [0, -1]])
    weights = np.array([[0.5, 0.25], [0.5, 0], [0.25, 0]], np.float32)
    histories, items = np.array([[1, 2, -1]]), np.array([[0, 1, -1]])
    found = cooccurrence_match(neighbours, weights, items, histories, 3)
    np.testing.assert_allclose(found, [[0.75, 0, 0], [0.5, 0, 0], [0.5 + 0.8 * 0.25, 0, 0]], rtol=1e-6)


def test_cooccurrence_of_many_requests_in_blocks_is_that_of_each_request(monkeypatch):
    random = np.random.default_rng(0)
    neighbours, weights = random.integers(-1, 40, (40, 4)), random.random((40, 4), np.float32)
    items, histories = random.integers(-1, 40, (30, 5)), random.integers(-1, 40, (30, 6))
    alone = [cooccurrence_match(neighbours, weights, i[None], h[None], 40) for i, h in zip(items, histories)]
    monkeypatch.setattr(pair_fields, "BLOCK", 24 * 7)
    together = cooccurrence_match(neighbours, weights, items, histories, 40)
    assert np.array_equal(together, np.concatenate(alone, axis=1)) and together.any()


def test_memory_of_cooccurrence_does_not_grow_with_items_times_requests():
    count, requests = 300_000, 256
    neighbours, weights = np.zeros((count, 2), np.int32), np.ones((count, 2), np.float32)
    items, histories = np.arange(requests)[:, None], np.zeros((requests, 3), np.int64)
    tracemalloc.start()
    try:
        cooccurrence_match(neighbours, weights, items, histories, count)
        assert tracemalloc.get_traced_memory()[1] < 10 * 4 * count
    finally:
        tracemalloc.stop()


def test_a_ranker_scores_alike_offline_and_online(board, rows):
    pairs = (
        {"field": "collaborative", "refreshes": 2},
        {"field": "text_match", "embedder": "wordllama", "refreshes": 2},
    )
    ranker = train_ranker(board, rows, RankerSettings(pair_fields=pairs, min_steps=5, hidden=(8,)), 0)
    names = ranker.layout.numbers
    assert onnx_inputs(ranker, rows)["numbers"].shape == (len(rows), len(names)), "what an exported graph is fed"
    assert "collaborative_mean" in names and "text_match_map_max" in names
    users, items = np.array([0, 3]), np.array([[1, 4, 2], [5, 0, 9]])
    times = np.full(2, int(rows["time"].max()) + 1)
    state = ranker.encode(Requests(users, times))
    online = ranker.inputs.candidates(state, Slate(items), slice(None))["numbers"].numpy()
    frame = pl.DataFrame({"user": np.repeat(users, 3), "item": items.ravel(), "time": np.repeat(times, 3)})
    offline = ranker.inputs.arrays(frame).numbers
    assert online.tobytes() == offline.tobytes()


def test_a_field_is_left_out_below_its_rows(board, rows):
    few = [
        CollaborativeMatch(least_rows=len(rows) + 1),
        TextMatch(embedder="wordllama", least_rows=len(rows) + 1),
    ]
    for field in few:
        field.fit(board, rows, int(rows["time"].max()))
        assert field.labels == () and field.matrix(Rows(board, rows)).shape == (len(rows), 0)
    enough = CollaborativeMatch(least_rows=len(rows), refreshes=1)
    enough.fit(board, rows, int(rows["time"].max()))
    assert len(enough.labels) == 8


def test_by_default_rankers_of_few_rows_have_no_pair_fields_and_named_ones_are_kept(board, rows, tmp_path):
    plain = train_ranker(board, rows, RankerSettings(min_steps=5, hidden=(8,)), 0)
    assert not any("collaborative" in name or "text_match" in name for name in plain.layout.numbers)
    named = train_ranker(
        board,
        rows,
        RankerSettings(pair_fields=({"field": "collaborative", "refreshes": 1},), min_steps=5, hidden=(8,)),
        0,
    )
    assert "collaborative_co_sum" in named.layout.numbers
    plain.save(tmp_path / "plain")
    again = type(plain).load(tmp_path / "plain", board)
    assert again.predict(rows).equals(plain.predict(rows))


def test_text_match_embeds_descriptions_only_where_it_is_told_to():
    board = checkerboard(10, 8)
    told = replace(board, items=board.items.with_columns(description=pl.col("item_id").cast(pl.String) + " of oak"))
    every = np.arange(board.n_items)

    def vectors(dataset, **options):
        field = TextMatch("wordllama", **options)
        field.embedder_used = "wordllama"
        return field.embed(dataset, every)

    assert (vectors(told) == vectors(board, description=100)).all()
    assert not np.allclose(vectors(told, description=100), vectors(told))
    assert TextMatch().options["description"] == 0 and TextMatch(description=9).options["description"] == 9
