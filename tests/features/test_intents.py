"""Rows of intents: what goes in comes out, within what int8 can hold."""

from __future__ import annotations

import numpy as np
import polars as pl
import pytest

from taiji.core.errors import TaijiError
from taiji.data.intent_rows import INTENTS, directions, intent_rows, to_int8
from taiji.features.intents import intent_columns, intent_metrics


def unit(rows: int, width: int = 64, seed: int = 0) -> np.ndarray:
    vectors = np.random.default_rng(seed).normal(size=(rows, width))
    return (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)


def test_directions_survive_int8():
    vectors = unit(200)
    again = directions(to_int8(vectors))
    assert np.linalg.norm(again, axis=1) == pytest.approx(np.ones(200), abs=1e-6)
    assert (again * vectors).sum(axis=1).min() > 0.9998
    assert not directions(to_int8(np.zeros((2, 4)))).any()


def test_columns_and_rows_hang_together():
    vectors = unit(6)
    vectors[3] = vectors[1]  # said twice
    levels = [[f"l{place}", ""] for place in range(6)]
    columns = intent_columns(vectors, np.array([0.2, 0.3, 0.1, 0.4, 0.5, 0.5]), levels, [4, 0, 2], 2, "e@1")
    assert dict(columns.schema) == INTENTS
    assert columns["intents"].to_list()[1] is None
    assert columns["intent_embedder"].to_list() == ["e@1", None, "e@1"]
    rows = intent_rows(columns, 3, 2)
    assert rows.vectors.shape == (3, 3, 64)
    assert rows.weights == pytest.approx(np.array([[0.7 / 0.9, 0.2 / 0.9, 0], [0, 0, 0], [0.5, 0.5, 0]]))
    for row, place, said in ((0, 0, 1), (0, 1, 0), (2, 0, 4), (2, 1, 5)):
        assert rows.vectors[row, place] @ vectors[said] > 0.9998
        assert rows.levels[row, place].tolist() == [f"l{said}", None]
    assert not rows.vectors[1].any() and rows.levels[1].tolist() == [[None, None]] * 3
    first = intent_rows(columns, 1, 1)
    assert first.weights.tolist() == [[1], [0], [1]] and first.levels.tolist() == [[["l1"]], [[None]], [["l4"]]]
    found = intent_metrics(columns)
    assert found == pytest.approx({"with_intents": 2 / 3, "intents": 2, "first_weight": (0.7 / 0.9 + 0.5) / 2})


def test_a_table_without_any_intent():
    columns = intent_columns(np.zeros((0, 4)), np.zeros(0), [], [0, 0], 8, "e@1")
    assert intent_metrics(columns) == {"with_intents": 0, "intents": 0, "first_weight": 0}
    rows = intent_rows(columns, 8, 1)
    assert rows.weights.shape == (2, 8) and not rows.weights.any()


def test_errors():
    with pytest.raises(TaijiError, match="do not match"):
        intent_columns(unit(2), np.ones(2), [["a"]], [2], 8, "e@1")
    with pytest.raises(TaijiError, match="no intents"):
        intent_rows(pl.DataFrame({"ids": [1]}), 8, 1)
    mixed = pl.concat(
        [intent_columns(unit(1, width), np.ones(1), [["a"]], [1], 8, "e@1") for width in (4, 6)], how="vertical"
    )
    with pytest.raises(TaijiError, match="different lengths"):
        intent_rows(mixed, 8, 1)
