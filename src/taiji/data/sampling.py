"""Sample users and non-clicks with a seed. Non-clicks are drawn from the items that were popular at the time, without
using the future."""

from __future__ import annotations

import numpy as np
import polars as pl
from numpy.typing import NDArray

from taiji.core.progress import progress

Ints = NDArray[np.int64]
CHUNK = 100_000
"""Number of rows that share a random generator."""


def sample_users(events: pl.DataFrame, count: int | None, seed: int, time: str = "timestamp") -> pl.Series:
    """Sample ``count`` users, spread evenly over the time of the log.

    This is a systematic sample: users are sorted by the median time of their events, and every k-th user from a seeded
    start is chosen. Even a small sample therefore has about the same distribution over time, and about the same bounds
    of a split by time, as the log. The median times are used only to choose users.

    Args:
        events: events with ``user_id`` and a column of times.
        count: number of users to keep; None, or more than the number of users, keeps all.
        seed: random seed for the start.
        time: name of the column of times.

    Returns:
        the ids of the chosen users, ascending.
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
    """Draw items that were popular at the time of each interaction and with which the user had not interacted by then.

    A draw chooses one of the last ``window`` interactions strictly before the time of the row and takes its item, so an
    item is drawn in proportion to its recent popularity. Repeated items, and items with which the user interacted at or
    before the time of the row, are dropped. The draws of a row depend only on earlier rows and rows of the same time.

    Args:
        users: dense user ids, ``(n,)``, sorted by time.
        items: dense item ids, ``(n,)``.
        times: times, ``(n,)``, ascending.
        per_row: largest number of drawn items per row.
        seed: random seed for the draws.
        window: number of interactions from which popularity is computed.
        keep: mask of the rows for which to draw, ``(n,)``; all by default.

    Returns:
        row numbers ``(k,)``, ascending; the item drawn for each of them, ``(k,)``; and random numbers in [0, 1),
        ``(n, per_row + 1)``, NaN for rows that ``keep`` excludes. With the random numbers, the caller shuffles a click
        among its non-clicks, so that the position does not reveal the click.
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
