"""Rungs that a language model makes: read by point in time, controls that belong to nobody, and cost beside the
gain."""

import numpy as np
import polars as pl
import pytest
from benchmarks.uplift import student_shares

from taiji.core.errors import InputError
from taiji.data.dataset import Dataset
from taiji.data.fields import Rows
from taiji.data.intent_rows import INTENTS
from taiji.data.item_text import item_texts
from taiji.data.knowledge_rows import listed_at
from taiji.experiments import ladder
from taiji.experiments.ladder import climb
from taiji.experiments.uplift_language_rungs import (
    COLUMNS,
    Intents,
    Knowledge,
    ShuffledKnowledge,
    StudentIntents,
    intent_rungs,
    knowledge_rungs,
    of_others,
    read_intents,
    student_rungs,
    tokens_per_row,
)
from taiji.experiments.uplift_rungs import Rung, Text, collaborative, counts
from taiji.experiments.uplift_trial import Trial
from taiji.features.feature_table import export_table
from taiji.features.intents import intent_columns
from taiji.features.student import StudentSettings
from taiji.language.embed import load_embedder
from taiji.world.settings import ShopSettings
from taiji.world.shop import Shop


@pytest.fixture(scope="module")
def trial():
    return Trial.of(Dataset.from_tables(Shop(ShopSettings(users=250, tail=300), 0).tables()), most=1500)


@pytest.fixture(scope="module")
def knowledge(trial):
    shop = trial.dataset
    return pl.DataFrame(
        {
            "item_id": shop.items["item_id"].cast(pl.String),
            "text": [f"It is like {text}." for text in item_texts(shop)],
            "available_at": listed_at(shop),
            "prompt_tokens": [90] * shop.n_items,
            "completion_tokens": [30] * shop.n_items,
        }
    )


@pytest.fixture(scope="module")
def intents(trial):
    """Each user foresees two items, from the beginning of the candidates on."""
    shop, embedder = trial.dataset, load_embedder("wordllama")
    users = np.arange(shop.n_users)
    said = np.stack([users % shop.n_items, (7 * users + 1) % shop.n_items], axis=1).ravel()
    columns = intent_columns(
        embedder.encode(item_texts(shop))[said],
        np.tile([0.75, 0.25], len(users)),
        [[]] * len(said),
        [2] * len(users),
        8,
        f"wordllama@{embedder.version}",
    )
    start = int(trial.train["time"].min())
    times = {"user": users, "as_of": [start] * len(users), "available_at": [start + 1] * len(users)}
    return pl.concat([pl.DataFrame(times), columns], how="horizontal")


def test_knowledge_is_read_and_its_control_has_the_same_texts_at_other_items(trial, knowledge):
    fields = [
        kind(trial)[0]
        for kind in (Knowledge(knowledge, "wordllama"), Knowledge(knowledge, "wordllama", ShuffledKnowledge))
    ]
    for field in fields:
        field.fit(trial.dataset, trial.train, trial.cut)
    own, shuffled = (field.vectors.codes for field in fields)
    order = np.lexsort(own.T), np.lexsort(shuffled.T)
    assert np.array_equal(own[order[0]], shuffled[order[1]]) and not np.array_equal(own, shuffled)
    rows = Rows(trial.dataset, trial.test)
    clicked = trial.test["click"].to_numpy() == 1
    gaps = [mean[clicked].mean() - mean[~clicked].mean() for mean in (field.matrix(rows)[:, 0] for field in fields)]
    assert gaps[0] > gaps[1] + 0.01


def test_intents_count_from_when_they_could_be_read(trial, intents):
    (field,) = Intents(intents)(trial)
    field.fit(trial.dataset, trial.train, trial.cut)
    found = field.matrix(Rows(trial.dataset, trial.test))
    known = field.labels.index("intents_known")
    assert found[:, known].all()
    (late,) = Intents(intents.with_columns(available_at=pl.lit(trial.cut + 1)))(trial)
    late.fit(trial.dataset, trial.train, trial.cut)
    assert late.labels == (), "no row of the training had any"
    at = int(trial.test["time"].quantile(0.5))
    field.table = intents.with_columns(available_at=pl.lit(at))
    later = (trial.test["time"] > at).to_numpy()
    assert np.array_equal(field.matrix(Rows(trial.dataset, trial.test))[:, known] > 0, later)


def test_the_students_arm_learns_before_the_test_and_covers_every_history(trial, intents):
    (rung,) = student_rungs(intents, "2")
    assert rung.side and rung.cost == {"tokens_per_user": 0.0}
    late = int(trial.train["time"].quantile(0.9))
    rows = intents.with_columns(as_of=pl.lit(late), available_at=pl.lit(late))
    planted = rows.head(50).with_columns(as_of=pl.lit(trial.cut), available_at=pl.lit(trial.cut))
    field = StudentIntents(pl.concat([rows, planted]), StudentSettings(epochs=1, width=8, heads=2))
    field.fit(trial.dataset, trial.train.tail(60), trial.cut)
    history = trial.dataset.history.count_before
    assert field.student.facts["rows"] == int((history(rows["user"].to_numpy(), rows["as_of"].to_numpy()) > 0).sum())
    few = trial.test[:60]
    found = field.matrix(Rows(trial.dataset, few))[:, field.labels.index("intents_known")]
    known = history(few["user"].to_numpy(), few["time"].to_numpy()) > 0
    assert np.array_equal(found > 0, known) and known.any()


def test_the_control_has_the_rows_with_intents_of_others(intents):
    """A control that knows less than the rung would be too easy to beat."""
    times = pl.Series(np.random.default_rng(0).integers(0, 1000, len(intents)))
    intents = intents.with_columns(as_of=times, source=pl.col("user"))
    mixed = of_others(intents)
    assert mixed.columns == intents.columns
    own = [name for name in intents.columns if name not in INTENTS]
    assert mixed.select(own).sort(own).equals(intents.select(own).sort(own)), "users and times stay"
    both = intents.join(mixed, on="user", suffix="_other")
    same = both.filter(pl.col("intents") == pl.col("intents_other"))
    assert len(both) == len(intents) and len(same) < 0.05 * len(intents), "users may foresee the same"
    assert not len(of_others(intents.head(1)))


def test_the_control_draws_from_rows_that_are_not_later(intents):
    marked = intents.head(60).with_columns(
        user=pl.Series(np.arange(60) // 3, dtype=intents["user"].dtype),
        as_of=pl.Series(np.arange(60), dtype=intents["as_of"].dtype),
        intents=pl.Series([[row] for row in range(60)], dtype=pl.List(pl.Int8)),
    )
    mixed = of_others(marked)
    donors = mixed["intents"].list.first().to_numpy()
    assert (donors // 3 != np.arange(60) // 3).all()
    assert (donors[3:] < np.arange(60)[3:]).all(), "but for the first user, before whom there is nobody"


def test_intents_of_a_run_and_of_an_export_are_read_alike(trial, intents, tmp_path):
    """Users are found by their ids: the run's numbers are others."""
    shop = trial.dataset
    moved = (shop.users["user"].cast(pl.Int64) + 5) % shop.n_users
    stored = tmp_path / "data" / "dataset"
    stored.mkdir(parents=True)
    shop.users.select(moved.alias("user"), "user_id").write_parquet(stored / "users.parquet")
    (tmp_path / "features").mkdir()
    file = tmp_path / "features" / "taiji.parquet"
    intents.with_columns(user=moved).write_parquet(file)
    found = read_intents(file, shop)
    assert found.columns == list(COLUMNS) and found.sort("user").equals(intents.select(COLUMNS).sort("user"))
    variant = tmp_path / "study" / "stages" / "features-sft" / "taiji.parquet"
    variant.parent.mkdir(parents=True)
    variant.write_bytes(file.read_bytes())
    assert read_intents(variant, shop).equals(found)
    pl.DataFrame({"prompt_tokens": [300, 500], "completion_tokens": [100, 100]}).write_parquet(
        file.with_name("completions.parquet")
    )
    assert tokens_per_row(file) == {"tokens_per_user": 500} and not tokens_per_row(tmp_path / "x.parquet")
    further = {"ids": None, "neighbour": None, "similarity": None, "neighbour_items": None, "vector": None}
    kinds = {"ids": pl.List(pl.UInt16), "neighbour": pl.UInt32, "similarity": pl.Float32}
    kinds |= {"neighbour_items": pl.List(pl.UInt32), "vector": pl.List(pl.Float32)}
    full = intents.with_columns(
        pl.col("user").cast(pl.UInt32),
        *(pl.lit(None, kinds[name]).alias(name) for name in further),
        model_version=pl.lit("m"),
        quantizer_version=pl.lit("q"),
    )
    export_table(full, shop, tmp_path / "export.parquet")
    assert read_intents(tmp_path / "export.parquet", shop).equals(intents.select(COLUMNS))


def test_a_table_without_intents_is_an_error(trial, intents, tmp_path):
    intents.drop("intents").with_columns(user_id=pl.lit("x")).write_parquet(tmp_path / "t.parquet")
    with pytest.raises(InputError, match="no intents"):
        read_intents(tmp_path / "t.parquet", trial.dataset)
    intents.with_columns(user_id=pl.lit("nobody")).write_parquet(tmp_path / "t.parquet")
    with pytest.raises(InputError, match="of other users"):
        read_intents(tmp_path / "t.parquet", trial.dataset)


def test_rungs_stand_on_text_match_with_their_cost(trial, knowledge, intents, monkeypatch):
    used = {}

    def model(bench, fields, train_numbers, test_numbers, seeds):
        used[len(used)] = [field.name for field in fields]
        assert train_numbers.shape[1] == sum(len(field.labels) for field in fields)
        return ladder.Fitted([np.linspace(0, 1, len(test_numbers))] * seeds, [np.zeros(2)] * seeds, np.ones(2))

    monkeypatch.setitem(ladder.MODELS, "fixed", model)
    rungs = [Rung("0", counts), Rung("1", collaborative), Rung("2", Text("wordllama"))]
    rungs += knowledge_rungs(knowledge, "wordllama", "2")
    rungs += intent_rungs("4 intents", intents, "2", {"tokens_per_user": 400.0})
    rows = [row for row in climb(trial, rungs, ("fixed",), seeds=1, resamples=5) if row["group"] == "all"]
    assert [row.get("against") for row in rows] == [None, "0", "1", "2", "2", "2", "2"]
    ground = ["collaborative", "text_match"]
    assert list(used.values()) == [
        [],
        ground[:1],
        ground,
        *[[*ground, "item_knowledge"]] * 2,
        *[[*ground, "intents"]] * 2,
    ]
    assert rows[3]["tokens_per_item"] == 120 and rows[5]["tokens_per_user"] == 400
    assert not any("tokens" in key for row in (rows[2], rows[4], rows[6]) for key in row)


def test_rows_with_intents_are_a_stratum_of_their_own(trial, intents):
    """Half of the users have a row, and from the middle of the test period on."""
    at = int(trial.test["time"].quantile(0.5))
    half = intents.filter(pl.col("user") % 2 == 0).with_columns(available_at=pl.lit(at))
    wanted = ((trial.test["time"] > at) & (trial.test["user"].cast(pl.Int64) % 2 == 0)).to_numpy()
    rungs = [*intent_rungs("4 intents", half, "2", {}), *student_rungs(half, "2")]
    for rung in rungs:
        masks = rung.strata(trial)
        assert np.array_equal(masks.pop("covered"), wanted) and 0 < wanted.sum() < len(wanted)
        assert list(masks) == list(trial.strata())
    for rung in rungs[:2]:
        assert rung.shares(trial) == {"told_train": 0.0, "told_test": pytest.approx(wanted.mean())}
    first = trial.dataset.events.group_by("user").agg(pl.col("time").min().alias("first"))
    later = [
        rows.join(first, on="user", how="left")
        .select(pl.col("time") > pl.col("first"))
        .to_series()
        .fill_null(False)
        .mean()
        for rows in (trial.train, trial.test)
    ]
    assert list(rungs[2].shares(trial).values()) == pytest.approx(later), "the student knows every user with a history"
    assert later[1] > wanted.mean()
    assert "covered" not in Rung("0", counts).strata(trial) and not Rung("0", counts).shares(trial)


def test_the_students_share_is_told_where_there_is_a_gain_to_keep():
    def rung(name, gain, low, group="all"):
        return {"model": "taiji", "rung": name, "group": group, "gain": gain, "low": low}

    rows = [
        {"data": "facts of the log", "users": 3},
        rung("4 intents", 0.02, 0.01),
        rung("4 intents, student", 0.015, 0.01),
        rung("4 intents", 0.02, -0.01, "cold items"),
        rung("4 intents, student", 0.01, 0.0, "cold items"),
        {"model": "taiji", "rung": "4 intents, student", "group": "both", "auc": None},
    ]
    found = {row["group"]: row["share"] for row in student_shares(rows)}
    assert found == {"all": pytest.approx(0.75), "cold items": None}
    assert not student_shares(rows[:2]), "a ladder without a student"
