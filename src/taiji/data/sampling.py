"""Seeded choices that look only backwards: which users to keep, and non-clicks from what was popular at the time."""

from __future__ import annotations

import numpy as np
import polars as pl
from numpy.typing import NDArray

from taiji.core.progress import progress

Ints = NDArray[np.int64]
CHUNK = 100_000
"""Rows that share one random generator."""


def sample_users(events: pl.DataFrame, count: int | None, seed: int, time: str = "timestamp") -> pl.Series:
    """Choose ``count`` users, spread evenly over the time of the log.

    Users are put in the order of the middle of their activity and every k-th is taken from a seeded start (a
    systematic sample), so that a small sample keeps the log's distribution in time and the bounds of a time split
    stay where they were. Which users are chosen is a matter of the sample alone; nothing else reads these middles.

    Args:
        events: ``user_id`` and a time column.
        count: users to keep; None or more than there are keeps all.
        seed: random seed of the start.
        time: name of the time column.

    Returns:
        the ids kept, ascending.
    """
    middles = (
        events.group_by("user_id").agg(pl.col(time).cast(pl.Int64).median().alias("middle")).sort("middle", "user_id")
    )
    if count is not None and count < len(middles):
        start = np.random.default_rng([seed, 2]).random()
        middles = middles[np.floor((np.arange(count) + start) * len(middles) / count).astype(np.int64)]
    return middles["user_id"].sort()


def popular_non_clicks(
    users: Ints,
    items: Ints,
    times: Ints,
    per_row: int,
    seed: int,
    *,
    window: int,
    keep: NDArray[np.bool_] | None = None,
) -> tuple[Ints, Ints, NDArray[np.float64]]:
    """Draw items that were popular at the time of each interaction and that its user had not touched by then.

    A draw picks one of the last ``window`` interactions strictly before the row's time and takes its item, so an item's
    chance is its recent popularity. Items that the user touched at or before that time and repeats are left out. A
    row's draws depend on the rows before it and on rows of its own instant alone.

    Args:
        users: ``(n,)`` dense ids, rows in time order.
        items: ``(n,)`` dense ids.
        times: ``(n,)`` ascending.
        per_row: at most this many draws survive per row.
        seed: random seed of the draws.
        window: interactions that count as recent.
        keep: ``(n,)`` rows to draw for; all by default.

    Returns:
        ``rows (k,)`` ascending, ``items (k,)``, and a random number per row of ``per_row + 1`` (for shuffling a click
        among its non-clicks without telling them apart by position): ``(n, per_row + 1)``, NaN for rows not kept.
    """
    count, draws = len(users), 2 * per_row + 2
    width = int(items.max()) + 1 if count else 1
    pairs, inverse = np.unique(users * width + items, return_inverse=True)
    first_times = np.full(len(pairs), np.iinfo(np.int64).max)
    np.minimum.at(first_times, inverse, times)
    rows_out, items_out, shuffles = [], [], np.full((count, per_row + 1), np.nan)
    with progress("sampling non-clicks", count) as update:
        for number, start in enumerate(range(0, count, CHUNK)):
            stop = min(start + CHUNK, count)
            generator = np.random.default_rng([seed, 3, number])
            uniform = generator.random((stop - start, draws + per_row + 1))
            rows = np.arange(start, stop) if keep is None else start + np.flatnonzero(keep[start:stop])
            uniform = uniform[rows - start]
            shuffles[rows] = uniform[:, draws:]
            earlier = np.searchsorted(times, times[rows], side="left")
            low = np.maximum(earlier - window, 0)
            places = low[:, None] + np.floor(uniform[:, :draws] * (earlier - low)[:, None]).astype(np.int64)
            drawn = items[np.minimum(places, count - 1)]
            wanted = users[rows, None] * width + drawn
            found = np.minimum(np.searchsorted(pairs, wanted), len(pairs) - 1)
            usable = ~((pairs[found] == wanted) & (first_times[found] <= times[rows, None])) & (earlier > 0)[:, None]
            for column in range(1, draws):
                usable[:, column] &= ~(drawn[:, :column] == drawn[:, column : column + 1]).any(axis=1)
            usable &= np.cumsum(usable, axis=1) <= per_row
            at, which = np.nonzero(usable)
            rows_out.append(rows[at])
            items_out.append(drawn[at, which])
            update(stop)
    empty = np.zeros(0, np.int64)
    return np.concatenate([empty, *rows_out]), np.concatenate([empty, *items_out]), shuffles
