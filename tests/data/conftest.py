"""Small logs for the tests of the data room."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime, timedelta

import numpy as np
import polars as pl
import pytest
from tests.models.ranking.conftest import shop_tables

from taiji.data.dataset import Dataset
from taiji.data.schema import Tables

START = datetime(2020, 1, 1)


def small_log(users: int = 6, items: int = 12, rows: int = 240, seed: int = 0) -> Tables:
    """A log of exposures an hour apart; every third is a click, conversions mature after a day."""
    random = np.random.default_rng(seed)
    hours = np.sort(random.integers(0, rows, rows))
    click = random.integers(0, 3, rows) == 0
    converted = click & (random.random(rows) < 0.5)
    times = [START + timedelta(hours=int(hour)) for hour in hours]
    return Tables(
        items=pl.DataFrame(
            {
                "item_id": [f"i{k}" for k in range(items)],
                "title": [f"Item {k}" for k in range(items)],
                "category_l1": ["a"] * items,
            }
        ),
        users=pl.DataFrame({"user_id": np.arange(100, 100 + users), "city": ["x"] * users}),
        events=pl.DataFrame(
            {
                "user_id": random.integers(100, 100 + users, rows),
                "item_id": [f"i{k}" for k in random.integers(0, items, rows)],
                "timestamp": times,
                "click": click.astype(np.int8),
                "conversion": converted.astype(np.int8),
                "matured_at": [time + timedelta(days=1) for time in times],
                "price": np.round(random.random(rows) + 1, 2),
            }
        ),
        name="small",
    )


@pytest.fixture
def make_log() -> Callable[..., Tables]:
    return small_log


@pytest.fixture(scope="session")
def shop() -> Dataset:
    return Dataset.from_tables(shop_tables())
