from __future__ import annotations

import hashlib
import json
from dataclasses import replace
from datetime import datetime, timedelta

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from taiji.core.errors import TaijiError
from taiji.data import PERIODS, Dataset, Split, SplitSettings, exposures, fingerprint, time_split
from taiji.data.schema import Tables


def clicks_at(hours):
    """A dataset of one user's clicks at these hours."""
    times = [datetime(2020, 1, 1) + timedelta(hours=hour) for hour in hours]
    events = pl.DataFrame(
        {"user_id": [1] * len(hours), "item_id": [1] * len(hours), "timestamp": times, "click": [1] * len(hours)}
    )
    return Dataset.from_tables(
        Tables(pl.DataFrame({"item_id": [1], "title": ["x"]}), pl.DataFrame({"user_id": [1]}), events)
    )


def test_bounds_are_quantiles_of_the_clicks():
    dataset = clicks_at(range(10))
    split = time_split(dataset, (0.4, 0.3, 0.2, 0.1))
    hour = 3_600_000_000
    start = dataset.events["time"][0]
    assert [bound - start for bound in split.bounds] == [0, 4 * hour, 7 * hour, 9 * hour, 9 * hour + 1]
    assert split.interval("llm") == (split.bounds[1], split.bounds[2])
    assert time_split(dataset, SplitSettings(fractions=(0.4, 0.3, 0.2, 0.1))) == split


@settings(deadline=None, max_examples=30)
@given(st.lists(st.integers(0, 60), min_size=20, max_size=60))
def test_periods_partition_the_log_and_never_tear_an_instant(hours):
    dataset = clicks_at(hours)
    try:
        split = time_split(dataset)
    except TaijiError as error:
        assert "cannot be split" in str(error)
        return
    parts = [exposures(dataset, split, period) for period in PERIODS]
    assert pl.concat(parts)["event"].to_list() == list(range(len(hours))) and all(len(part) for part in parts)


def test_a_log_of_one_instant_cannot_be_split():
    with pytest.raises(TaijiError, match="1 distinct times"):
        time_split(clicks_at([5] * 50))


@pytest.mark.parametrize("fractions", [(0.5, 0.5, 0.5, 0.5), (0.5, 0.5, 0.0, 0.0), (0.3, 0.3, 0.4)])
def test_fractions_are_checked(fractions):
    with pytest.raises(ValueError):
        SplitSettings(fractions=fractions)


def test_an_unknown_period_is_a_clear_error():
    with pytest.raises(TaijiError, match="period is unknown"):
        Split((0, 1, 2, 3, 4)).interval("train")


def test_labels_count_only_when_mature_strictly_before_the_end(make_log):
    dataset = Dataset.from_tables(make_log())
    split = time_split(dataset)
    for period in PERIODS:
        start, end = split.interval(period)
        rows = exposures(dataset, split, period)
        whole = dataset.events.filter(pl.col("time").is_between(start, end, closed="left"))
        mature = (whole["matured_at"] < end).to_numpy()
        assert rows.columns == ["event", "user", "item", "time", "click", "conversion", "price"]
        assert rows["event"].equals(whole["event"]) and (rows["conversion"].is_not_null().to_numpy() == mature).all()
        assert 0 < mature.sum() < len(mature)
        assert (rows["conversion"].drop_nulls().to_numpy() == whole["conversion"].to_numpy()[mature]).all()
    edge = replace(dataset, events=dataset.events.with_columns(matured_at=pl.lit(split.bounds[1])))
    assert exposures(edge, split, "reward")["conversion"].null_count() == len(exposures(edge, split, "reward"))


def test_history_only_rows_are_no_exposures(make_log):
    tables = make_log()
    hidden = replace(tables, events=tables.events.with_columns(exposed=pl.col("click") == 0))
    dataset = Dataset.from_tables(hidden)
    split = time_split(dataset)
    assert sum(exposures(dataset, split, period)["click"].sum() for period in PERIODS) == 0
    assert len(dataset.history.items) == tables.events["click"].sum()


def test_an_exposures_price_is_not_its_own(make_log):
    """Prices on clicks alone would give the click away; what was known before does not."""
    tables = make_log()
    dataset = Dataset.from_tables(
        replace(tables, events=tables.events.with_columns(pl.when(pl.col("click") == 1).then("price").alias("price")))
    )
    rows = exposures(dataset, time_split(dataset), "test")
    for row in rows.rows(named=True):
        past = dataset.events.filter(
            (pl.col("item") == row["item"]) & (pl.col("time") < row["time"]) & pl.col("price").is_not_null()
        )
        assert row["price"] == (past["price"][-1] if len(past) else None)
    assert rows.filter(pl.col("click") == 0)["price"].null_count() == 0


def test_fingerprint_is_defined_and_ignores_order():
    frame = pl.DataFrame({"user_id": ["b", "a"], "as_of": [2, 10], "target_id": ["x", "y"], "other": [1, 2]})
    wanted = hashlib.sha256(
        b"".join(json.dumps(row).encode() + b"\n" for row in [["a", 10, "y"], ["b", 2, "x"]])
    ).hexdigest()
    assert fingerprint(frame) == fingerprint(frame.reverse().drop("other")) == wanted
    assert fingerprint(frame.with_columns(as_of=pl.col("as_of") + 1)) != wanted


def test_interactions_of_every_period_have_their_share(make_log):
    dataset = Dataset.from_tables(make_log(rows=4000))
    split = time_split(dataset)
    counts = np.histogram(dataset.history.times, bins=split.bounds)[0]
    np.testing.assert_allclose(counts / counts.sum(), SplitSettings().fractions, atol=0.01)
