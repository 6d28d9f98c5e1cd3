"""The pair field of intents keeps the promises of fields; its numbers by their definitions; offline and online are the
same bytes."""

import weakref

import numpy as np
import polars as pl
import pytest

from taiji.core.component import Requests, Slate
from taiji.core.errors import TaijiError
from taiji.data.fields import Rows
from taiji.data.item_text import item_texts
from taiji.features.intents import intent_columns
from taiji.language.embed import load_embedder
from taiji.models.ranking import intent_match
from taiji.models.ranking.intent_match import IntentMatch
from taiji.testing import check_field, checkerboard, exposures_of

MOST = 3


@pytest.fixture(scope="module")
def board():
    return checkerboard(12, 10, 4)


@pytest.fixture(scope="module")
def vectors(board):
    return load_embedder("wordllama").encode(item_texts(board))


@pytest.fixture(scope="module")
def rows(board, vectors):
    """Each user foresees two items, the first with three quarters of the weight; users of a multiple of five foresee
    nothing."""
    frame = exposures_of(board)
    users = np.arange(board.n_users)
    wanted = np.stack([users % board.n_items, (3 * users + 1) % board.n_items], axis=1)
    counts = np.where(users % 5, 2, 0)
    said = wanted[counts > 0].ravel()
    embedder = load_embedder("wordllama")
    levels = [[board.items[name][int(item)] or "" for name in board.levels] for item in said]
    made = intent_columns(
        vectors[said],
        np.tile([0.75, 0.25], len(said) // 2),
        levels,
        counts.tolist(),
        MOST,
        f"wordllama@{embedder.version}",
    )
    return pl.concat([frame, made[frame["user"].to_numpy().astype(int).tolist()]], how="horizontal")


def fitted(board, rows) -> IntentMatch:
    field = IntentMatch(MOST)
    field.fit(board, rows, int(rows["time"].max()) + 1)
    return field


def test_promises(board, rows):
    check_field(IntentMatch(MOST), board, rows)


def test_numbers_are_those_of_their_definitions(board, rows, vectors):
    field = fitted(board, rows)
    names = [name.removeprefix("intents_") for name in field.labels]
    assert names == ["max", "mean", "soft_max", "rank", *(f"l{n + 1}" for n in range(len(board.levels))), "known"]
    found = dict(zip(names, field.matrix(Rows(board, rows)).T))
    places = field.space.place(vectors)[0].unit()
    for row, (user, item) in enumerate(rows.select("user", "item").iter_rows()):
        if user % 5 == 0:
            assert not any(values[row] for values in found.values())
            continue
        wanted = [user % board.n_items, (3 * user + 1) % board.n_items]
        if len(set(wanted)) == 1 or vectors[wanted[0]] @ vectors[wanted[1]] > 0.899:
            continue  # merged
        cosines = places[wanted] @ places.T
        assert found["max"][row] == pytest.approx(cosines[:, item].max(), abs=0.02)
        assert found["mean"][row] == pytest.approx(np.array([0.75, 0.25]) @ cosines[:, item], abs=0.02)
        assert found["mean"][row] - 1e-6 <= found["soft_max"][row] <= found["max"][row] + 1e-6
        assert found["known"][row] == 1
        if item in wanted:
            assert found["max"][row] > 0.99 and found["rank"][row] > 0.4
        for level, name in enumerate(board.levels):
            same = [board.items[name][w] == board.items[name][item] is not None for w in wanted]
            assert found[f"l{level + 1}"][row] == pytest.approx(np.array([0.75, 0.25]) @ same)


def test_the_rank_tells_the_place_in_the_catalogue(board, rows):
    field = fitted(board, rows)
    user = int(rows.filter(pl.col("intents").is_not_null())["user"][0])
    one = rows.filter(pl.col("user") == user)[:1]
    asked = pl.concat([one] * board.n_items).with_columns(item=pl.Series(range(board.n_items), dtype=pl.UInt32))
    found = field.matrix(Rows(board, asked))
    best, rank = found[:, 0], found[:, field.labels.index("intents_rank")]
    above = (best[None] > best[:, None]).sum(axis=1)
    np.testing.assert_allclose(rank, 1 - np.log1p(above) / np.log1p(board.n_items - 1), rtol=1e-6)


def test_one_request_is_the_same_bytes_as_many_rows(board, rows):
    field = fitted(board, rows)
    whole = field.matrix(Rows(board, rows))
    for size in (1, 7, 40):
        chosen = np.random.default_rng(size).permutation(len(rows))[:size].tolist()
        assert field.matrix(Rows(board, rows[chosen])).tobytes() == whole[chosen].tobytes()


def test_it_keeps_the_cosines_of_one_set_only(board, rows, monkeypatch):
    field, known, most = fitted(board, rows), [], []
    whole, cosines = field.matrix(Rows(board, rows)), field._cosines

    class Watched(np.ndarray):
        """An array whose life can be watched."""

    def watched(*given):
        near, ranked = cosines(*given)
        near = near.view(Watched)
        known.append(weakref.ref(near))
        most.append(sum(one() is not None for one in known))
        return near, ranked

    monkeypatch.setattr(field, "_cosines", watched)
    monkeypatch.setattr(intent_match, "REQUESTS", 3)
    assert np.array_equal(field.matrix(Rows(board, rows)), whole)
    assert len(most) >= 8, "there are several sets"
    assert max(most) <= 2, "the last one, and the one that takes its place"


def test_rows_without_intents_say_nothing(board, rows):
    bare = rows.select(exposures_of(board).columns)
    field = IntentMatch(MOST)
    field.fit(board, bare, int(rows["time"].max()) + 1)
    assert field.labels == () and field.matrix(Rows(board, bare)).shape == (len(bare), 0)
    assert not fitted(board, rows).matrix(Rows(board, bare)).any()


def test_intents_of_another_embedder_are_an_error(board, rows):
    field = fitted(board, rows)
    other = rows.with_columns(intent_embedder=pl.lit("wordllama@2"))
    with pytest.raises(TaijiError, match="different embedder"):
        field.matrix(Rows(board, other))
    with pytest.raises(TaijiError, match="several embedders"):
        field.fit(board, pl.concat([rows, other]), 2**62)


def test_a_ranker_scores_alike_offline_and_online(board, rows):
    from taiji.models.ranking.settings import RankerSettings
    from taiji.models.ranking.train import train_ranker

    settings = RankerSettings(pair_fields=({"field": "intents", "most": MOST},), min_steps=5, hidden=(8,))
    ranker = train_ranker(board, rows, settings, 0)
    assert "intents_soft_max" in ranker.layout.numbers
    two = rows.filter(pl.col("intents").is_not_null()).unique("user", maintain_order=True)[:2]
    users, items = two["user"].to_numpy().astype(np.int64), np.array([[1, 4, 2], [5, 0, 9]])
    names = ("intents", "intent_weights", "intent_levels", "intent_embedder")
    columns = {}
    for name in names:
        columns[name] = np.empty(2, dtype=object)
        columns[name][:] = two[name].to_list()
    times = np.full(2, int(rows["time"].max()) + 1)
    state = ranker.encode(Requests(users, times, columns))
    online = ranker.inputs.candidates(state, Slate(items), slice(None))["numbers"].numpy()
    frame = pl.concat(
        [
            two[[0, 0, 0, 1, 1, 1]].select(names),
            pl.DataFrame({"user": np.repeat(users, 3), "item": items.ravel(), "time": np.repeat(times, 3)}),
        ],
        how="horizontal",
    )
    assert online.tobytes() == ranker.inputs.arrays(frame).numbers.tobytes()
