"""A log of clips: roles are proposed for the columns beyond user, item and time, and unused columns are reported."""

from __future__ import annotations

import numpy as np
import polars as pl
import pytest
import yaml
from tests.data.discovery import exports

from taiji.core.errors import TaijiError
from taiji.data import Dataset, load_source
from taiji.data.discovery.propose import propose
from taiji.data.discovery.table_files import read_tables
from taiji.pipeline.initial_summary import as_json, initialised_text
from taiji.pipeline.initialise import initialise


def clips(folder) -> None:
    """Reactions, watch time, lists, positions, propensities, questionnaires, and much that is none of these."""
    who, what, at, rng = exports.log()
    rows = exports.EVENTS
    pl.DataFrame({"clip_id": range(exports.ITEMS), "title": [f"Clip no {i}" for i in range(exports.ITEMS)]}).write_csv(
        folder / "clips.csv"
    )
    clicked = rng.integers(0, 2, rows)
    asked = rng.random(rows) < 0.05
    log = {
        "user_id": who,
        "clip_id": what,
        "timestamp": at,
        "clicked": clicked,
        "watch_seconds": (rng.random(rows) * 60 * clicked).round(2),
        "Liked": rng.integers(0, 2, rows),
        "comments": rng.integers(0, 4, rows),
        "stars": rng.integers(1, 6, rows),
        "survey": [int(v) if a else None for a, v in zip(asked, rng.integers(0, 2, rows))],
        "scenario": rng.choice(["home", "search"], rows),
        "network": rng.choice(["wifi", "4g"], rows),
        "thumbnail": rng.choice(["small", "large"], rows),
        "request_id": [f"r{k // 6}" for k in range(rows)],
        "position": np.arange(rows) % 6,
        "propensity": (0.05 + rng.random(rows) * 0.9).round(3),
        "duration_of_clip": what % 7 + 10,
        "note": [f"free text {k}" for k in range(rows)],
        "platform": [f"build {k}" for k in range(rows)],
    }
    pl.DataFrame(log).write_csv(folder / "log.csv")
    pl.DataFrame({"exchange": ["a", "b"], "rate": [1.0, 2.0]}).write_csv(folder / "other.csv")


FOUND = {
    "events.labels.watch_seconds": {"kind": "duration"},
    "events.labels.liked": {"kind": "binary", "column": "Liked"},
    "events.labels.stars": {"kind": "ordinal", "grades": [1, 2, 3, 4, 5]},
    "events.labels.survey": {"kind": "survey"},
    "events.context": ("scenario", "network"),
    "events.bias": ("thumbnail",),
    "events.list_id": "request_id",
    "events.position": "position",
    "events.propensity": "propensity",
}


@pytest.fixture
def folder(tmp_path):
    folder = tmp_path / "clips"
    folder.mkdir()
    clips(folder)
    return folder


def look(folder, **answers):
    return propose(read_tables(folder)[0], {key.replace("__", "."): value for key, value in answers.items()}, "clips")


def test_roles_are_inferred_from_names_and_values(folder):
    proposal = look(folder)
    assert not proposal.questions
    assert {key: guess.value for key, guess in proposal.guesses.items() if key in FOUND} == FOUND
    assert not {key for key in proposal.guesses if key.startswith("events.labels.")} - set(FOUND)


def test_unsure_roles_are_suggested_and_unused_columns_are_listed(folder):
    proposal = look(folder)
    lines = dict(proposal.suggestions)
    assert "comments counts from 0 to 3" in lines["labels: {comments: {kind: count}}"]
    assert "platform does not hold 2 to 200 distinct texts or integers" in lines["context: [platform]"]
    assert len(lines) == 2
    assert proposal.unused["log.csv"] == ["comments", "duration_of_clip", "note", "platform"]
    assert proposal.unused["other.csv"] == ["exchange", "rate"]


def test_a_rating_that_decides_a_conversion_is_only_suggested_as_a_label(tmp_path):
    exports.ratings(tmp_path)
    proposal = propose(read_tables(tmp_path)[0])
    assert [line for line, _ in proposal.suggestions] == ["labels: {stars: {kind: ordinal, grades: [1, 2, 3, 4, 5]}}"]
    assert "events.labels.stars" not in proposal.guesses


def test_decisions_win(folder):
    proposal = look(folder, events__labels="null", events__position="null", events__context="[platform]")
    assert not any(key.startswith(("events.labels", "events.position")) for key in proposal.guesses)
    assert proposal.guesses["events.context"].value == ("platform",)
    assert {"watch_seconds", "position", "scenario"} <= set(proposal.unused["log.csv"])
    assert "platform" not in proposal.unused["log.csv"]
    declared = look(folder, events__labels="{comments: {kind: count}}").values["events"]["labels"]
    assert declared == {"comments": {"kind": "count"}}


def test_the_proposal_loads_and_its_mapping_names_every_column(folder, tmp_path):
    made = initialise(folder, tmp_path, "clips", {})
    text = made.files[0].read_text()
    assert "    watch_seconds: {kind: duration}" in text
    assert "# labels: {comments: {kind: count}}" in text and "# not used: other.csv (exchange, rate)" in text
    for name in pl.read_csv(folder / "log.csv").columns:
        assert name in text
    dataset = Dataset.from_tables(load_source(folder, made.files[0]))
    assert [task.name for task in dataset.tasks] == ["click", "watch_seconds", "liked", "stars", "survey"]
    assert dataset.events["stars"].max() == 4 and dataset.context == ("scenario", "network")
    shown = initialised_text(made)
    assert "not used from log.csv: comments" in shown and "could be added to events: labels: {comments" in shown
    assert "labels: {comments: {kind: count}}" in as_json(made)["suggestions"]
    assert yaml.safe_load(text)["events"]["propensity"] == "propensity"


def test_a_level_can_be_left_out_or_added_by_a_decision(tmp_path):
    exports.chinese(tmp_path)
    tables = read_tables(tmp_path)[0]
    without = propose(tables, {"items.category_l2": "null"}).values["items"]
    assert "category_l2" not in without and without["category_l1"] == "一级类目"
    added = propose(tables, {"items.category_l3": "二级类目"}).values["items"]
    assert added["category_l3"] == "二级类目"
    with pytest.raises(TaijiError, match="column does not exist"):
        propose(tables, {"items.category_l3": "nowhere"})


def test_as_many_named_levels_as_there_are(tmp_path):
    exports.chinese(tmp_path)
    goods = tmp_path / "商品.parquet"
    deeper = pl.read_parquet(goods).with_columns(
        pl.format("三级{}", pl.int_range(pl.len()) % 18).alias("三级类目"),
        pl.format("四级{}", pl.int_range(pl.len()) % 36).alias("四级类目"),
    )
    deeper.write_parquet(goods)
    items = propose(read_tables(tmp_path)[0]).values["items"]
    assert [items.get(f"category_l{level}") for level in range(1, 6)] == [
        "一级类目",
        "二级类目",
        "三级类目",
        "四级类目",
        None,
    ]


def test_labels_with_names_that_are_not_ascii_are_all_kept(tmp_path):
    clips(tmp_path)
    log = pl.read_csv(tmp_path / "log.csv")
    liked = log["Liked"]
    named = log.drop("Liked", "survey", "stars", "comments").with_columns(
        **{"点赞": liked, "收藏": 1 - liked, "关注": liked.reverse(), "停留": log["watch_seconds"] + 1}
    )
    named.write_csv(tmp_path / "log.csv")
    guesses = propose(read_tables(tmp_path)[0]).guesses
    labels = {
        key: guess.value["column"] for key, guess in guesses.items() if "labels" in key and "column" in guess.value
    }
    assert {"点赞", "收藏", "关注", "停留"} <= {str(column).strip('"`') for column in labels.values()}, labels
