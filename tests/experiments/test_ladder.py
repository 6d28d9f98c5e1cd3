"""The ladder: candidates keep the protocol, text gains where it tells and permuted text does not, the oracle sees no
own item."""

from dataclasses import replace

import numpy as np
import polars as pl
import pytest

from taiji.core.errors import InputError
from taiji.data.dataset import Dataset
from taiji.data.fields import Rows
from taiji.experiments.decision import decisions
from taiji.experiments.ladder import _compared, climb
from taiji.experiments.uplift_rungs import NextTexts, Rung, collaborative, counts, ladder
from taiji.experiments.uplift_trial import NEGATIVES, Trial, log_facts
from taiji.testing import checkerboard
from taiji.world.settings import ShopSettings
from taiji.world.shop import Shop


@pytest.fixture(scope="module")
def shop():
    return Dataset.from_tables(Shop(ShopSettings(users=250, tail=300), 0).tables())


@pytest.fixture(scope="module")
def trial(shop):
    return Trial.of(shop, most=3000)


def test_candidates_keep_the_protocol(trial):
    events = trial.dataset.events
    assert events.select("user", "item").is_duplicated().sum() == 0
    rows = pl.concat([trial.train, trial.test])
    touched = events.select("user", "item").with_columns(pl.col("user", "item").cast(pl.Int64))
    wrong = rows.filter(pl.col("click") == 0).join(touched, on=["user", "item"], how="inner")
    assert not len(wrong)
    per_group = rows.group_by("group").agg(
        pl.col("click").sum(), pl.len(), pl.col("time").n_unique(), pl.col("user").n_unique().alias("u")
    )
    assert (per_group["click"] == 1).all() and (per_group["len"] <= 1 + NEGATIVES).all()
    assert (per_group["time"] == 1).all() and (per_group["u"] == 1).all()
    assert trial.train["time"].max() < trial.cut <= trial.test["time"].min()
    assert all(at > trial.cut for at in trial.refreshes)


def test_a_short_log_is_rejected():
    with pytest.raises(InputError, match="too short"):
        Trial.of(checkerboard(6, 6, 1))


def test_the_oracle_leaves_the_own_time_out_for_all_candidates_alike(trial):
    (field,) = NextTexts("wordllama")(trial)
    (full,) = NextTexts("wordllama", own=True)(trial)
    rows = Rows(trial.dataset, trial.test)
    clicked = trial.test["click"].to_numpy() == 1
    less, more = field.matrix(rows), full.matrix(rows)
    assert more[clicked, 0].max() > 0.999 > less[clicked, 0].mean()
    empty = pl.DataFrame({"group": trial.test["group"], "empty": ~less.any(axis=1)})
    assert (empty.group_by("group").agg(pl.col("empty").n_unique())["empty"] == 1).all(), (
        "the set's size tells the click"
    )
    assert empty["empty"].any()


def test_the_facts_are_those_of_the_whole_log(trial):
    """Not of the candidates that were sampled: else one refresh of the users looks cheaper than it is."""
    events = trial.dataset.events.filter((pl.col("time") >= trial.cut) & (pl.col("click") == 1))
    facts = log_facts(trial)
    assert (facts["users"], facts["items"]) == (events["user"].n_unique(), events["item"].n_unique())
    assert facts["users"] > trial.test["user"].n_unique()


def test_two_trainings_that_disagree_show_nothing(trial):
    """The spread of two seeds is known badly, and their resampling shrinks it."""
    labels = trial.test["click"].to_numpy().astype(float)
    noise = np.random.default_rng(0).normal(size=len(labels))
    before = (noise, noise)
    found = _compared(trial, (noise + labels, noise - 0.4 * labels), before, np.ones(len(labels), bool), 200, 0.95)
    assert found["low"] < 0 < found["high"] and found["gain"] > 0.02
    alike = _compared(trial, (noise + labels, noise + labels), before, np.ones(len(labels), bool), 200, 0.95)
    assert alike["low"] > 0


@pytest.mark.slow
def test_every_rung_is_compared_with_the_one_before(trial):
    pytest.importorskip("lightgbm")
    rungs = [Rung("0", counts), Rung("1", collaborative), *ladder("wordllama")[2:4]]
    rungs[3] = Rung(rungs[3].name, rungs[3].fields, "1", True, True)
    rows = [row for row in climb(trial, rungs, ("LightGBM",), seeds=1, resamples=50) if row["group"] == "all"]
    assert [row.get("against") for row in rows] == [None, "0", "1", "1"]
    assert [row.get("kept") for row in rows] == [None, None, 1.0, 0.0]
    assert rows[2]["kept_gain"] == rows[2]["gain"] and rows[3]["kept_gain"] == 0
    text, control = rows[2], rows[3]
    assert text["gain"] > control["gain"] + 0.01
    facts = log_facts(trial)
    assert 0 <= facts["new_items"] <= 1 and facts["history"] > 0


def test_a_rung_without_values_is_not_measured(trial):
    """A log of ids only: the text fields have no columns, which says nothing about texts or models."""
    pytest.importorskip("lightgbm")
    numbers = trial.dataset.items.with_columns(title=pl.col("item").cast(pl.String))
    dataset = replace(trial.dataset, items=numbers.drop("category_l1", "category_l2", "category_l3", strict=False))
    bare = Trial.of(replace(dataset, given_levels=()), most=1500)
    rungs = [Rung("0 counts", counts), *(rung for rung in ladder("wordllama") if rung.name[0] in "24")]
    rows = [row for row in climb(bare, rungs, ("LightGBM",), seeds=1, resamples=20) if row["group"] == "all"]
    assert "unread" not in rows[0] and len(rows) == len(rungs)
    for row in rows[1:]:
        assert row["unread"] and not {"gain", "kept", "against"} & set(row)
    found = decisions({**log_facts(bare)}, rows, bare.dataset.n_items)
    assert all("not measured" in line["found"] for line in found if "text match" in line["found"])
