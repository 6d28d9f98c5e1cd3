"""Nothing at or after a time changes what was made for it."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime, timedelta

import numpy as np
import polars as pl
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.data.conftest import small_log

from taiji.data import PERIODS, Dataset, ExampleSettings, exposures, make_examples, time_split
from taiji.data.schema import Tables, validate
from taiji.data.sources.ratings import from_ratings, with_non_clicks

LIMIT = 8


def planted(tables: Tables, rows, first: datetime) -> Tables:
    """The log with further events of known users and items, none before ``first``, put in front of the others."""
    users, items, hours, clicks = zip(*rows)
    new = pl.DataFrame(
        {
            "user_id": [tables.users["user_id"][user % len(tables.users)] for user in users],
            "item_id": [tables.items["item_id"][item % len(tables.items)] for item in items],
            "timestamp": [first + timedelta(hours=hour) for hour in hours],
            "click": clicks,
            "conversion": clicks,
            "matured_at": [first + timedelta(hours=hour) for hour in hours],
            "exposed": [True] * len(rows),
            "price": [999.0] * len(rows),
        },
        schema_overrides={"click": pl.Int8, "conversion": pl.Int8},
    )
    return replace(tables, events=pl.concat([new, validate(tables).events], how="diagonal_relaxed"))


ROWS = st.lists(
    st.tuples(st.integers(0, 99), st.integers(0, 99), st.integers(0, 300), st.integers(0, 1)), min_size=1, max_size=20
)


@settings(deadline=None, max_examples=25)
@given(ROWS, st.integers(0, 10**6))
def test_planted_events_change_no_example_history_or_earlier_exposure(rows, pick):
    tables = small_log(rows=400, items=40)
    dataset = Dataset.from_tables(tables)
    split = time_split(dataset)
    options = ExampleSettings(target="next_purchase", per_user=None, min_history=1)
    examples = pl.concat([make_examples(dataset, split, period, options, 0) for period in PERIODS])
    as_of = examples["as_of"][pick % len(examples)]
    changed = Dataset.from_tables(planted(tables, rows, datetime(1970, 1, 1) + timedelta(microseconds=as_of)))

    earlier = examples.filter(pl.col("as_of") <= as_of)
    users, times = earlier["user"].to_numpy(), earlier["as_of"].to_numpy()
    for before, after in zip(
        dataset.history.before_batch(users, times, LIMIT), changed.history.before_batch(users, times, LIMIT)
    ):
        np.testing.assert_array_equal(before, after)
    items = np.arange(dataset.n_items)
    np.testing.assert_array_equal(
        dataset.prices.before(items, np.full(len(items), as_of)),
        changed.prices.before(items, np.full(len(items), as_of)),
    )
    for period in PERIODS:
        start, end = split.interval(period)
        if end <= as_of:
            assert exposures(changed, split, period).equals(exposures(dataset, split, period))
            assert make_examples(changed, split, period, options, 0).equals(
                make_examples(dataset, split, period, options, 0)
            )
        elif start < as_of:
            old, new = (exposures(each, split, period).filter(pl.col("time") < as_of) for each in (dataset, changed))
            assert new.equals(old)
            old, new = (
                make_examples(each, split, period, options, 0).filter(pl.col("as_of") < as_of)
                for each in (dataset, changed)
            )
            assert new.equals(old)


@settings(deadline=None, max_examples=25)
@given(ROWS, st.integers(0, 399))
def test_planted_events_change_no_earlier_sampled_non_click(rows, pick):
    tables = validate(small_log(rows=400, items=40))
    moment = tables.events["timestamp"][pick]

    def earlier(given: Tables) -> pl.DataFrame:
        made = with_non_clicks(validate(given), per_row=3, seed=5, keep_users=None).events
        return made.filter(pl.col("timestamp") < moment)

    assert earlier(planted(tables, rows, moment)).equals(earlier(tables))


@settings(deadline=None, max_examples=15)
@given(st.integers(0, 199), st.integers(1, 30))
def test_later_ratings_change_no_earlier_exposure(pick, count):
    random = np.random.default_rng(0)
    ratings = pl.DataFrame(
        {
            "user_id": random.integers(0, 5, 200),
            "item_id": random.integers(0, 30, 200),
            "rating": random.integers(1, 6, 200),
            "timestamp": np.sort(random.integers(0, 150, 200)),
        }
    )
    ratings = ratings.with_columns(pl.from_epoch("timestamp"), pl.col("rating").cast(pl.Float64))
    items = pl.DataFrame({"item_id": np.arange(30), "title": [f"t{k}" for k in range(30)]})
    moment = ratings["timestamp"][pick]
    later = pl.DataFrame(
        {
            "user_id": random.integers(0, 5, count),
            "item_id": random.integers(0, 30, count),
            "rating": [5.0] * count,
            "timestamp": [moment] * count,
        },
        schema=ratings.schema,
    )

    def earlier(given: pl.DataFrame) -> pl.DataFrame:
        made = from_ratings(given, items, pl.DataFrame({"user_id": np.arange(5)}), name="r", domain="films", seed=1)
        return made.events.filter(pl.col("timestamp") < moment)

    assert earlier(pl.concat([later, ratings])).equals(earlier(ratings))
