"""Log of users who step around a circle of items, so that only the order of the history determines the next item."""

from __future__ import annotations

import numpy as np
import polars as pl

from taiji.data import Dataset
from taiji.data.schema import Tables


def circle() -> Dataset:
    """Return a log of 120 users with four to eight interactions each, on a circle of twelve items."""
    random = np.random.default_rng(0)
    rows = [
        (f"u{user}", f"i{(start + step) % 12:02d}", step)
        for user, start in enumerate(random.integers(12, size=120))
        for step in range(int(random.integers(4, 9)))
    ]
    users, items, steps = zip(*rows)
    names = sorted(set(items))
    tables = Tables(
        items=pl.DataFrame({"item_id": names, "title": names}),
        users=pl.DataFrame({"user_id": sorted(set(users))}),
        events=pl.DataFrame({"user_id": users, "item_id": items, "step": steps}).select(
            "user_id",
            "item_id",
            pl.from_epoch(pl.col("step") * 86_400, "s").alias("timestamp"),
            pl.lit(1).alias("click"),
        ),
        name="circle",
    )
    return Dataset.from_tables(tables)
