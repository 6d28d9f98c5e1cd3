"""Replay of shown items, by hand."""

from __future__ import annotations

import numpy as np
import polars as pl
import pytest

from taiji.core.errors import TaijiError
from taiji.experiments.replay import chance_in_first, replay

FRAME = pl.DataFrame(
    {
        "user": [0, 0, 0, 1, 1, 1, 2],
        "item": [0, 1, 2, 0, 1, 2, 0],
        "time": [1, 1, 1, 5, 5, 5, 9],
        "click": [1, 0, 1, 0, 1, 0, 1],
        "conversion": [1, 0, 0, 0, 1, 0, 1],
        "price": [10.0, 20.0, 30.0, 10.0, 20.0, 30.0, 1.0],
    }
)


def test_each_ranker_earns_what_its_first_items_earned():
    good = pl.DataFrame({"ctcvr": [0.9, 0.1, 0.2, 0.1, 0.9, 0.2, 0.5]})
    bad = pl.DataFrame({"ctcvr": [0.1, 0.9, 0.2, 0.1, 0.2, 0.9, 0.5]})
    rows = {
        (r["features"], r["metric"]): r for r in replay(FRAME, {"none": bad, "good": good}, k=1, fee=0.1, resamples=50)
    }
    assert rows["good", "clicks"]["value"] == 1 and rows["none", "clicks"]["value"] == 0
    assert rows["good", "conversions"]["value"] == 1
    assert rows["good", "revenue"]["value"] == pytest.approx((0.1 * 10 + 0.1 * 20) / 2)
    assert rows["good", "advertiser value"]["value"] == pytest.approx((10 + 20) / 2)
    assert rows["good", "clicks"]["difference"] == {
        "against": "none",
        "value": 1.0,
        "low": None,
        "high": None,
        "reason": "too few users (2; at least 10 are needed)",
    }
    assert rows["good", "clicks"]["n"] == 2  # the third user's request has one item: no choice


def test_ties_share_the_places():
    np.testing.assert_allclose(
        chance_in_first(np.array([0, 0, 0, 1, 1]), np.array([1.0, 1.0, 0.5, 2.0, 2.0]), 1),
        [0.5, 0.5, 0, 0.5, 0.5],
    )
    np.testing.assert_allclose(
        chance_in_first(np.array([1, 0, 1, 1]), np.array([3.0, 9.0, 2.0, 2.0]), 2), [1, 1, 0.5, 0.5]
    )


def test_a_log_without_choice_gives_nothing():
    rows = replay(FRAME.tail(1), {"none": pl.DataFrame({"ctcvr": [0.1]})}, k=1)
    assert [row["metric"] for row in rows] == ["clicks", "conversions", "revenue", "advertiser value"]
    assert {(row["value"], row["low"], row["n"]) for row in rows} == {(None, None, 0)}
    assert all("none offers more than 1 items" in row["reason"] for row in rows)


def test_predictions_and_prices_that_are_no_numbers_are_explained():
    good = pl.DataFrame({"ctcvr": [0.9, 0.1, 0.2, 0.1, 0.9, 0.2, 0.5]})
    with pytest.raises(TaijiError, match="prediction"):
        replay(FRAME, {"none": good.with_columns(ctcvr=pl.lit(float("nan")))}, k=1)
    with pytest.raises(TaijiError, match="outcome"):
        replay(FRAME.with_columns(price=pl.lit(float("inf"))), {"none": good}, k=1)


def test_rankers_that_choose_alike_differ_by_identity():
    good = pl.DataFrame({"ctcvr": [0.9, 0.1, 0.2, 0.1, 0.9, 0.2, 0.5]})
    found = [row["difference"] for row in replay(FRAME, {"none": good, "same": good}, k=1) if "difference" in row]
    assert found and all((gap["low"], gap["high"], gap["method"]) == (0.0, 0.0, "identity") for gap in found)
