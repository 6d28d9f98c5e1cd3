"""The pair field of item knowledge keeps the promises of fields, counts a text from its time, and takes its texts
along."""

from dataclasses import replace

import numpy as np
import polars as pl
import pytest

from taiji.core.component import Requests, Slate
from taiji.core.errors import ConfigError
from taiji.data.fields import Rows
from taiji.data.knowledge_rows import with_knowledge
from taiji.models.ranking.default_fields import pair_fields
from taiji.models.ranking.item_knowledge_match import ItemKnowledge
from taiji.models.ranking.onnx_export import onnx_inputs
from taiji.models.ranking.settings import RankerSettings
from taiji.models.ranking.train import load_ranker, train_ranker
from taiji.testing import check_field, checkerboard, exposures_of

WORDS = ("cooking soup in the kitchen", "running in the park")


@pytest.fixture(scope="module")
def board():
    """A log whose titles say nothing."""
    made = checkerboard(12, 10, 4)
    titles = [f"article {number}" for number in range(made.n_items)]
    return replace(made, items=made.items.with_columns(title=pl.Series(titles)), given_levels=())


@pytest.fixture(scope="module")
def table(board):
    """What is written tells the colours apart; the last item has no text."""
    count = board.n_items
    texts = [f"It is for {WORDS[item % 2]}, number {item} of its kind." for item in range(count - 1)]
    return pl.DataFrame(
        {
            "item_id": board.items["item_id"].cast(pl.String),
            "text": [*texts, None],
            "available_at": [int(board.events["time"].min())] * count,
        }
    )


@pytest.fixture(scope="module")
def path(table, tmp_path_factory):
    file = tmp_path_factory.mktemp("knowledge") / "knowledge.parquet"
    table.write_parquet(file)
    return str(file)


@pytest.fixture(scope="module")
def rows(board):
    return exposures_of(board)


def field_of(path):
    return ItemKnowledge(path, "wordllama", vector=3, history=6, refreshes=2)


def fitted(board, rows, path):
    field = field_of(path)
    field.fit(board, rows, int(rows["time"].max()) + 1)
    return field


def test_promises(board, rows, path):
    check_field(field_of(path), board, rows)


def test_users_of_one_colour_agree_with_their_items(board, rows, path):
    late = rows.filter(pl.col("time") > rows["time"].quantile(0.5))
    mean = fitted(board, rows, path).matrix(Rows(board, late))[:, 0]
    clicked = late["click"].to_numpy() == 1
    assert mean[clicked].mean() > mean[~clicked].mean() + 0.2


def test_one_request_is_the_same_bytes_as_many_rows(board, rows, path):
    field = fitted(board, rows, path)
    whole = field.matrix(Rows(board, rows))
    for size in (1, 7, 40):
        chosen = np.random.default_rng(size).permutation(len(rows))[:size]
        assert field.matrix(Rows(board, rows[chosen])).tobytes() == whole[chosen].tobytes()


def test_an_item_without_a_text_says_nothing(board, rows, path):
    found = fitted(board, rows, path).matrix(Rows(board, rows))
    assert not found[rows["item"].to_numpy() == board.n_items - 1].any()


def test_a_text_counts_from_its_time_on(board, rows, table, path, tmp_path):
    middle = int(rows["time"].quantile(0.6))
    later = pl.col("item_id").is_in(table["item_id"][:4].to_list())
    texts = table.with_columns(available_at=pl.when(later).then(middle).otherwise("available_at"))
    texts.write_parquet(tmp_path / "late.parquet")
    field, always = fitted(board, rows, str(tmp_path / "late.parquet")), fitted(board, rows, path)
    found, whole = (one.matrix(Rows(board, rows)) for one in (field, always))
    before, candidate = (rows["time"] < middle).to_numpy(), (rows["item"] < 4).to_numpy()
    assert not found[before & candidate].any() and whole[before & candidate].any()
    # From that time on the cosines are those of texts that had always been there; the map is learnt anew at the next
    # refresh.
    assert np.array_equal(found[~before, :5], whole[~before, :5])
    numbers = np.arange(board.n_items)
    assert field.known_at(numbers, middle - 1).tolist() == [-1] * 4 + list(range(4, board.n_items - 1)) + [-1]
    assert field.known_at(numbers, middle).tolist() == [*range(board.n_items - 1), -1]


def test_a_history_is_compared_with_as_far_as_it_has_texts(board, rows, table, tmp_path):
    """Texts that are written later than all rows are as if they were not there, in the histories too."""
    until, files = int(rows["time"].max()) + 1, []
    chosen = pl.col("item_id").is_in(table["item_id"][:4].to_list())
    for name, texts in (
        ("later", table.with_columns(available_at=pl.when(chosen).then(until + 1).otherwise("available_at"))),
        ("none", table.with_columns(text=pl.when(~chosen).then("text"))),
    ):
        texts.write_parquet(tmp_path / f"{name}.parquet")
        files.append(fitted(board, rows, str(tmp_path / f"{name}.parquet")).matrix(Rows(board, rows)))
    assert files[0].any() and files[0].tobytes() == files[1].tobytes()


def test_whitening_is_learnt_from_texts_before_the_end_of_training(board, rows, table, tmp_path):
    until = int(rows["time"].max()) + 1
    spaces = []
    for text in ("about ships", "an essay on whales and other animals"):
        planted = pl.DataFrame({"item_id": [table["item_id"][9]], "text": [text], "available_at": [until + 1]})
        texts = pl.concat([table.filter(pl.col("item_id") != table["item_id"][9]), planted])
        texts.write_parquet(tmp_path / "k.parquet")
        field = fitted(board, rows, str(tmp_path / "k.parquet"))
        spaces.append((field.space.axes.tobytes(), field.matrix(Rows(board, rows)).tobytes()))
    assert spaces[0] == spaces[1]


def test_a_new_item_has_a_place_from_its_text_alone(board, rows, table, path):
    """The texts of items that a smaller catalogue did not have travel with the field."""
    known = replace(board, items=board.items[:-3], events=board.events.filter(pl.col("item") < board.n_items - 3))
    old = rows.filter(pl.col("item") < board.n_items - 3)
    field = field_of(path)
    field.fit(known, old, int(rows["time"].max()) + 1)
    again = field_of("")
    again.restore(field.config(), field.tensors())
    late = rows.filter(pl.col("time") == rows["time"].max())
    asked = late.with_columns(item=pl.lit(board.n_items - 2, pl.UInt32))
    found = again.matrix(Rows(board, asked))
    assert found[:, :5].any(), "it has a text"
    assert found.tobytes() == field.matrix(Rows(board, asked)).tobytes()


def test_the_item_table_may_hold_the_texts_itself(board, rows, table, path):
    told = with_knowledge(board, table)
    own, named = field_of(""), fitted(board, rows, path)
    own.fit(told, rows, int(rows["time"].max()) + 1)
    assert own.matrix(Rows(told, rows)).tobytes() == named.matrix(Rows(board, rows)).tobytes()


def test_without_texts_the_message_tells_where_to_get_them(board, rows):
    (field,) = pair_fields(["item_knowledge"])
    assert isinstance(field, ItemKnowledge)
    with pytest.raises(ConfigError, match="`table` is empty"):
        field.fit(board, rows, int(rows["time"].max()))


def test_a_ranker_scores_alike_offline_and_online_and_after_reading(board, rows, path, tmp_path):
    given = {"field": "item_knowledge", "table": path, "embedder": "wordllama", "vector": 3}
    settings = RankerSettings(pair_fields=(given,), min_steps=3, hidden=(8,), dimension=4, tasks=("click",))
    ranker = train_ranker(board, rows, settings, 0)
    ranker.save(tmp_path / "ranker")
    read = load_ranker(tmp_path / "ranker", board)
    names = read.layout.numbers
    assert "item_knowledge_map_max" in names
    assert onnx_inputs(read, rows)["numbers"].shape == (len(rows), len(names)), "what an exported graph is fed"
    users, items = np.array([0, 3]), np.array([[1, 4, 2], [5, 0, 9]])
    times = np.full(2, int(rows["time"].max()) + 1)
    state = read.encode(Requests(users, times))
    online = read.inputs.candidates(state, Slate(items), slice(None))["numbers"].numpy()
    frame = pl.DataFrame({"user": np.repeat(users, 3), "item": items.ravel(), "time": np.repeat(times, 3)})
    assert online.tobytes() == ranker.inputs.arrays(frame).numbers.tobytes()


def test_two_paths_of_one_table_give_one_ranker(board, rows, table, path, tmp_path):
    table.write_parquet(tmp_path / "other.parquet")
    fields = [fitted(board, rows, file) for file in (path, str(tmp_path / "other.parquet"))]
    assert fields[0].options == fields[1].options
    assert all(np.array_equal(fields[0].tensors()[name], value) for name, value in fields[1].tensors().items())
