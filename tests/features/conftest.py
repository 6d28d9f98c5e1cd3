"""A tiny log with known histories."""

from __future__ import annotations

from datetime import datetime, timedelta

import numpy as np
import polars as pl
import pytest

from taiji.data.dataset import Dataset
from taiji.data.schema import Tables

START = datetime(2021, 5, 1)
MICROS = (
    int(START.timestamp() * 1e6) if START.tzinfo else int((START - datetime(1970, 1, 1)) / timedelta(microseconds=1))
)


def log(rows: list[tuple[int, int, int]], users: int = 6, items: int = 20) -> Dataset:
    """Dataset of clicks (user, item, minute after START)."""
    user, item, minute = (list(column) for column in zip(*rows))
    return Dataset.from_tables(
        Tables(
            items=pl.DataFrame(
                {"item_id": [f"i{i}" for i in range(items)], "title": [f"thing {i}" for i in range(items)]}
            ),
            users=pl.DataFrame({"user_id": [f"u{u}" for u in range(users)]}),
            events=pl.DataFrame(
                {
                    "user_id": [f"u{u}" for u in user],
                    "item_id": [f"i{i}" for i in item],
                    "timestamp": [START + timedelta(minutes=m) for m in minute],
                    "click": np.ones(len(rows), dtype=np.int8),
                }
            ),
        )
    )


def at(minute: int) -> int:
    """Microseconds of a minute after START."""
    return MICROS + minute * 60_000_000


@pytest.fixture
def clicks() -> list[tuple[int, int, int]]:
    random = np.random.default_rng(3)
    return [
        (int(u), int(i), int(m))
        for u, i, m in zip(
            random.integers(0, 6, 120), random.integers(0, 20, 120), np.sort(random.integers(0, 500, 120))
        )
    ]
