"""A small synthetic shop whose users have a favourite category, so that there is something to learn."""

from __future__ import annotations

from datetime import datetime, timedelta

import numpy as np
import polars as pl
import pytest

from taiji.data.dataset import Dataset
from taiji.data.schema import Tables


def shop_tables(users: int = 60, items: int = 80, rows: int = 6000, seed: int = 0) -> Tables:
    """Random exposures; the click probability is high for the favourite category, conversions depend on the price."""
    random = np.random.default_rng(seed)
    category = random.integers(0, 5, items)
    price = random.uniform(1, 20, items)
    favourite = random.integers(0, 5, users)
    user, item = random.integers(0, users, rows), random.integers(0, items, rows)
    liked = favourite[user] == category[item]
    click = random.random(rows) < np.where(liked, 0.7, 0.1)
    conversion = click & (random.random(rows) < np.where(price[item] < 8, 0.6, 0.15))
    minutes = np.sort(random.integers(0, 200_000, rows))
    start = datetime(2020, 1, 1)
    times = [start + timedelta(minutes=int(m)) for m in minutes]
    return Tables(
        items=pl.DataFrame(
            {
                "item_id": [f"i{i}" for i in range(items)],
                "title": [f"thing {i}" for i in range(items)],
                "category_l1": [f"group {c % 2}" for c in category],
                "category_l2": [f"kind {c}" for c in category],
                "category_l3": [None if i % 7 == 0 else f"sort {c}.{i % 2}" for i, c in enumerate(category)],
                "price": [None if i % 11 == 0 else float(p) for i, p in enumerate(price)],
            }
        ),
        users=pl.DataFrame(
            {
                "user_id": [f"u{u}" for u in range(users)],
                "age": [f"{20 + 10 * (u % 4)}s" for u in range(users)],
                "spend": random.random(users),
            }
        ),
        events=pl.DataFrame(
            {
                "user_id": [f"u{u}" for u in user],
                "item_id": [f"i{i}" for i in item],
                "timestamp": times,
                "exposed": random.random(rows) < 0.95,
                "click": click.astype(np.int8),
                "conversion": conversion.astype(np.int8),
                "matured_at": [t + timedelta(days=7) for t in times],
                "price": price[item],
            }
        ),
        name="synthetic",
    )


@pytest.fixture(scope="session")
def shop() -> Dataset:
    return Dataset.from_tables(shop_tables())


def exposures_of(dataset: Dataset) -> pl.DataFrame:
    """All exposed rows; conversion null unless known by the end of the log."""
    end = dataset.events["time"].max()
    return dataset.events.filter("exposed").select(
        "event",
        "user",
        "item",
        "time",
        "click",
        pl.when(pl.col("matured_at") < end).then(pl.col("conversion")).alias("conversion"),
        "price",
    )


@pytest.fixture(scope="session")
def exposures(shop: Dataset) -> pl.DataFrame:
    return exposures_of(shop)


def with_features(frame: pl.DataFrame, seed: int = 0) -> pl.DataFrame:
    random = np.random.default_rng(seed)
    n = len(frame)
    return frame.with_columns(
        ids=pl.Series(
            [None if i % 3 == 0 else random.integers(0, 32, 4).tolist() for i in range(n)], dtype=pl.List(pl.UInt16)
        ),
        neighbour_items=pl.Series(
            [None if i % 4 == 0 else random.integers(0, 80, i % 6).tolist() for i in range(n)], dtype=pl.List(pl.UInt32)
        ),
        vector=pl.Series(
            [None if i % 3 == 0 else random.normal(size=8).tolist() for i in range(n)], dtype=pl.List(pl.Float32)
        ),
    )
