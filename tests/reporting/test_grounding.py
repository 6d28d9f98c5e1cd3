"""Where single answers land, item by item."""

from __future__ import annotations

import numpy as np
import polars as pl
import pytest
from tests.small_shops import WordEmbedder, build, examples, micros

from taiji.reasoning.answers import format_completion
from taiji.reasoning.prompts import item_line
from taiji.reporting.catalogue import Catalogue
from taiji.reporting.grounding import GROUNDING_SCHEMA, ground_answers

LOG = [(u, i, d) for u in range(3) for d, i in enumerate([0, 2, 4])]
ROWS = examples([(0, 9, 1), (1, 9, 3), (2, 9, 5)]).with_columns(example=pl.Series(["a", "b", "c"]))


def judge(users, items, as_ofs):
    assert len(users) == len(items) == len(as_ofs)
    return (items + 1) / 100 + users


def test_a_perfect_answer_lands_on_its_target_and_a_malformed_one_nowhere():
    dataset, embedder = build(LOG, n_items=40), WordEmbedder()
    catalogue = Catalogue(dataset, embedder, micros(9))
    perfect = [format_completion("", item_line(dataset, t)) for t in ROWS["target"]]
    frame = ground_answers(
        catalogue, embedder, ROWS, {"base": ["no idea"] * 3, "aligned": ["<think>hm", *perfect[1:]]}, judge, count=4
    )
    assert frame.schema == GROUNDING_SCHEMA
    assert frame["model"].unique().to_list() == ["aligned"]
    assert frame["example"].unique(maintain_order=True).to_list() == ["b", "c"]
    assert frame.filter(pl.col("place") == 1)["item"].to_list() == [3, 5]
    assert frame["target_place"].to_list() == [1] * 8
    assert frame["ctcvr"].to_list() == pytest.approx(
        [(i + 1) / 100 + u for i, u in zip(frame["item"], np.repeat([1, 2], 4))]
    )
    assert frame.filter(pl.col("example") == "b")["similarity"].is_sorted(descending=True)


def test_no_well_formed_answer_gives_an_empty_frame():
    dataset, embedder = build(LOG), WordEmbedder()
    frame = ground_answers(
        Catalogue(dataset, embedder, micros(9)), embedder, ROWS, {"base": ["x", "", "<think>"]}, judge
    )
    assert frame.is_empty() and frame.schema == GROUNDING_SCHEMA


def test_nearest_agrees_with_a_full_sort(monkeypatch):
    dataset = build(LOG, n_items=60)
    catalogue = Catalogue(dataset, WordEmbedder(), micros(9))
    queries = WordEmbedder().encode(["apple", "soap bar", "Thing 12", "bread loaf"])
    near = queries @ catalogue._vectors.T
    wanted = catalogue._first[np.argsort(-near, axis=1, kind="stable")[:, :5]]
    monkeypatch.setattr("taiji.reporting.catalogue.SEARCH_BLOCK", 60)
    items, similarity = catalogue.nearest(queries, 5)
    assert (np.diff(similarity, axis=1) <= 0).all()
    assert (items[:, 0] == wanted[:, 0]).all()
    assert np.allclose(similarity, -np.sort(-near, axis=1)[:, :5])
