"""The student learns what the rows say, reads nothing of the future, covers everybody with a history, and is itself
again after saving."""

import numpy as np
import polars as pl
import pytest

from taiji.core.errors import InputError
from taiji.data.intent_rows import INTENTS, intent_rows, to_int8
from taiji.data.item_text import item_texts
from taiji.features import student as taught
from taiji.features.intents import intent_columns
from taiji.features.student import IntentStudent, StudentSettings, filled
from taiji.language.embed import load_embedder
from taiji.metrics.intent_sets import merged
from taiji.testing import checkerboard

SETTINGS = StudentSettings(intents=4, history=6, width=16, heads=2, epochs=12, batch=48, learning_rate=1e-2)


@pytest.fixture(scope="module")
def board():
    return checkerboard(40, 10, 6)


@pytest.fixture(scope="module")
def table(board):
    """Who took an even item last foresees items 2 and 4, others 3 and 5: a rule of the history that is not in it."""
    events = board.events.filter(pl.col("click") == 1)
    times = np.unique(events["time"].to_numpy())[60::70]
    rows = pl.DataFrame(
        {"user": np.repeat(np.arange(board.n_users), len(times)), "as_of": np.tile(times, board.n_users)}
    )
    items, _ = board.history.before_batch(rows["user"].to_numpy(), rows["as_of"].to_numpy(), 1)
    rows = rows.filter(pl.Series(items[:, 0] >= 0))
    odd = items[items[:, 0] >= 0, 0] % 2
    said = np.stack([2 + odd, 4 + odd], axis=1).ravel()
    embedder = load_embedder("wordllama")
    columns = intent_columns(
        embedder.encode(item_texts(board))[said],
        np.tile([0.75, 0.25], len(rows)),
        [[]] * len(said),
        [2] * len(rows),
        4,
        f"wordllama@{embedder.version}",
    )
    return pl.concat([rows, columns], how="horizontal")


@pytest.fixture(scope="module")
def student(board, table):
    return IntentStudent(SETTINGS).fit(board, table)


def test_it_learns_the_sets_and_their_weights(board, table, student):
    assert student.facts["loss"] < 0.3 * student.facts["loss_untrained"]
    said = intent_rows(student.write(board, table["user"].to_numpy(), table["as_of"].to_numpy()), 4, 0)
    wanted = intent_rows(table, 4, 0)
    best = np.einsum("nmd,nkd->nmk", said.vectors, wanted.vectors[:, :2]).max(axis=1)
    assert best.mean() > 0.9
    assert abs(float(said.weights[:, 0].mean()) - 0.75) < 0.15


def test_same_seed_same_bytes_and_itself_after_saving(board, table, student, tmp_path):
    few, short = table.head(40), SETTINGS.model_copy(update={"epochs": 1})
    one, again, other = (IntentStudent(short).fit(board, few, seed=seed).version for seed in (0, 0, 1))
    assert one == again != other
    student.save(tmp_path / "student")
    read = IntentStudent.load(tmp_path / "student")
    users, times = table["user"].to_numpy()[:20], table["as_of"].to_numpy()[:20]
    assert read.version == student.version and read.write(board, users, times).equals(
        student.write(board, users, times)
    )


def test_nothing_at_or_after_a_row_is_read(board, table, student):
    users, times = table["user"].to_numpy(), table["as_of"].to_numpy()
    early = times < np.median(times)
    now = int(times[early].max())
    past = type(board)(board.items, board.users, board.events.filter(pl.col("time") < now), board.name, board.domain)
    assert student.write(past, users[early], times[early]).equals(student.write(board, users[early], times[early]))


def test_everybody_with_a_history_has_a_row(board, student):
    users = np.arange(board.n_users)
    late = np.full(board.n_users, int(board.events["time"].max()) + 1)
    assert student.write(board, users, late)["intent_weights"].null_count() == 0
    first = student.write(board, users, np.zeros(board.n_users, np.int64))
    assert first["intent_weights"].null_count() == board.n_users and dict(first.schema) == INTENTS
    assert not len(student.write(board, users[:0], late[:0]))


def test_rows_are_written_in_blocks_with_the_same_bytes(board, student, monkeypatch):
    users, times = np.arange(board.n_users), np.full(board.n_users, int(board.events["time"].max()) + 1)
    whole = student.write(board, users, times)
    monkeypatch.setattr(taught, "BLOCK", 5)
    assert student.write(board, users, times).equals(whole)
    assert student.write(board, users[:0], times[:0]).equals(whole.head(0))


def test_rows_are_filled_where_they_are_missing_or_old(board, table, student):
    day = 86_400_000_000
    exposures = table.head(3).rename({"as_of": "feature_as_of"}).with_columns(time=pl.col("feature_as_of") + 2 * day)
    exposures = exposures.with_columns(
        pl.when(pl.int_range(3) == 0).then(None).otherwise(name).alias(name) for name in (*INTENTS, "feature_as_of")
    )
    exposures = exposures.with_columns(time=pl.col("time").fill_null(strategy="backward"))
    only = filled(exposures, board, student)
    assert only.columns == exposures.columns and only[1:].equals(exposures[1:])
    own = student.write(board, exposures["user"].to_numpy(), exposures["time"].to_numpy())
    assert only.select(*INTENTS)[0].equals(own[0])
    assert filled(exposures, board, student, 86_400).select(*INTENTS).equals(own)
    assert filled(exposures, board, student, 3 * 86_400).equals(only)


def test_too_few_rows_are_an_error(board, table):
    with pytest.raises(InputError, match="intent rows do not suffice"):
        IntentStudent(SETTINGS).fit(board, table.head(5))


def test_a_row_is_what_merging_and_rounding_give(board, student):
    random = np.random.default_rng(0)
    vectors = random.standard_normal((4, 5)).astype(np.float32)
    vectors[2] = vectors[0] * 1.01
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    weights = np.array([0.2, 0.5, 0.29, 0.01])
    codes, shares, levels, embedder = student._row(vectors, weights)
    places, total = merged(vectors[:3], weights[:3])
    assert len(places) == 2 and codes == to_int8(vectors[places]).ravel().tolist()
    np.testing.assert_allclose(shares, total / total.sum())
    assert levels == [[], []] and embedder == student.facts["embedder"]


def test_a_row_of_many_intents_keeps_the_strongest(student):
    vectors = np.linalg.qr(np.random.default_rng(0).standard_normal((64, 64)))[0].astype(np.float32)
    _, shares, _, _ = student._row(vectors, np.full(64, 1 / 64))
    assert len(shares) == 64 and sum(shares) == pytest.approx(1.0)
    _, shares, _, _ = student._row(vectors, np.array([0.0185, *np.full(63, 0.0155)]))
    assert shares == [1.0]
