"""Choose the users who get feature rows, and the times of these rows."""

from __future__ import annotations

import numpy as np
import polars as pl

from taiji.data import Dataset, Split, scan_exposures


def refresh_times(dataset: Dataset, split: Split, min_history: int, refreshes: int) -> pl.DataFrame:
    """Return the times of the feature rows as sorted columns `user` and `as_of`.

    The ranker's training period and the test period each have ``refreshes`` evenly spaced times. A user with at least
    ``min_history`` interactions gets a row at each of these times. If a user reaches this number between two of these
    times, the user's first row is dated right after the interaction that reaches it. Rows without new interactions
    since the user's previous row are omitted. This is the batch form of the near-online trigger: new behaviour, rather
    than a request, causes a row.
    """
    history, parts = dataset.history, []
    users = np.flatnonzero(np.diff(history.offsets) >= min_history)
    enough = history.times[history.offsets[users] + min_history - 1] + 1
    for period in ("ranker", "test"):
        start, end = split.interval(period)
        for refresh in range(refreshes):
            grid = start + (end - start) * refresh // refreshes
            limit = start + (end - start) * (refresh + 1) // refreshes
            due_at = np.maximum(enough, grid)
            due = due_at < limit
            parts.append(pl.DataFrame({"user": users[due], "as_of": due_at[due]}))
    rows = pl.concat(parts).sort("user", "as_of")
    seen = pl.Series(history.count_before(rows["user"].to_numpy(), rows["as_of"].to_numpy()))
    rows = rows.with_columns(seen=seen)
    fresh = (pl.col("seen") > pl.col("seen").shift(1).over("user")).fill_null(True)
    return rows.filter(fresh).select(pl.col("user").cast(pl.UInt32), pl.col("as_of").cast(pl.Int64))


def choose_users(
    dataset: Dataset, split: Split, times: pl.DataFrame, wanted: int | None, seed: int, delay_s: float = 0.0
) -> pl.Series:
    """Return a seeded sample of the users who have a feature row that can be read before one of their exposures in the
    test period."""
    first = times.group_by("user").agg(pl.col("as_of").min() + round(delay_s * 1e6))
    shown = (
        scan_exposures(dataset, split, "test").group_by("user").agg(pl.col("time").max()).collect(engine="streaming")
    )
    users = first.join(shown, on="user").filter(pl.col("time") > pl.col("as_of"))["user"].sort()
    if wanted is None or wanted >= len(users):
        return users
    return users.sample(wanted, seed=seed, shuffle=True).sort()
