"""Counters of the events of a log. Each counts events of one kind, such as clicks, by one key, such as the item."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, Protocol

import numpy as np
import polars as pl
from numpy.typing import NDArray

from taiji.data.past_counts import PastCount, PastMean

Array = NDArray[Any]
Key = Literal[
    "user", "item", "pair", "everything", "user_level_1", "user_level_2", "user_level_3", "level_3",
]  # fmt: skip
"""Keys by which events are counted. ``pair`` is a user and an item. Levels 1 to 3 are the first, the second and the
finest category level; see :class:`CountKeys`."""
Events = Literal["clicked", "shown", "shown_clicked", "known", "bought"]
CLICKED = pl.col("click") == 1
KNOWN = CLICKED & (pl.col("conversion") >= 0)
EVENTS: dict[Events, tuple[pl.Expr, str]] = {
    "clicked": (CLICKED, "time"),
    "shown": (pl.col("exposed"), "time"),
    "shown_clicked": (pl.col("exposed") & CLICKED, "time"),
    "known": (KNOWN, "matured_at"),
    "bought": (KNOWN & (pl.col("conversion") == 1), "matured_at"),
}
"""Kinds of events to count: the condition that selects the events, and the column with the time from which an event
counts."""
Count = tuple[Key, Events]
Mean = Literal["item", "level_3"]
CLICKS: tuple[Count, ...] = tuple(
    (key, "clicked") for key in ("user", "pair", "user_level_1", "user_level_2", "user_level_3")
)
"""Counters of a user's own clicks."""
COUNTS: tuple[Count, ...] = (
    *CLICKS,
    ("item", "clicked"),
    ("level_3", "clicked"),
    ("pair", "shown"),
    *((key, events) for key in ("user", "item", "everything") for events in EVENTS if events != "clicked"),
)  # type: ignore[assignment]
MEANS: tuple[Mean, ...] = ("item", "level_3")
"""Keys by which the logarithm (log1p) of the price is averaged."""


@dataclass(frozen=True, eq=False)
class CountKeys:
    """Integer keys by which events are counted.

    Attributes:
        n_items: number of items.
        codes: dense code of each item's first, second and finest category, (n_items,) int64 each. If the data has fewer
            than three levels, the codes of the missing levels are 0.
        sizes: number of codes at each of these levels.
    """

    n_items: int
    codes: tuple[Array, ...]
    sizes: tuple[int, ...]

    @classmethod
    def of(cls, items: pl.DataFrame, levels: Sequence[str]) -> CountKeys:
        """Return the keys for a table of items. ``levels`` are its category columns, the coarsest first."""
        counted = (*levels[:2], levels[-1]) if len(levels) > 2 else (*levels, *[None] * (3 - len(levels)))
        codes = tuple(_codes(items, level) for level in counted)
        return cls(len(items), codes, tuple(int(level.max(initial=0)) + 1 for level in codes))

    def of_level(self, users: Array, items: Array, level: int) -> Array:
        """Return the key of each pair of a user and the item's category at a level (0 to 2), (N,) int64."""
        return users * self.sizes[level] + self.codes[level][items]

    def make(self, key: Key, users: Array, items: Array) -> Array:
        """Return the integer key of each row of a user and an item, (N,) int64."""
        if key in ("user", "item"):
            return users if key == "user" else items
        if key == "pair":
            return users * self.n_items + items
        if key == "everything":
            return np.zeros_like(users)
        return self.codes[2][items] if key == "level_3" else self.of_level(users, items, int(key[-1]) - 1)


class EventCounts(Protocol):
    """Counters by name."""

    def count(self, key: Key, events: Events) -> PastCount:
        """Return the counter of events by a key; see :data:`COUNTS`."""

    def mean(self, key: Mean) -> PastMean:
        """Return the means of log1p prices per key; see :data:`MEANS`."""


class LogCounts:
    """Counters of the events of a log. Each is computed on first use, and kept.

    Args:
        events: events of the log; a counter reads the columns that it needs.
        keys: keys of the items.
        listed: prices in the table of items, (n_items,), NaN where missing.
    """

    def __init__(self, events: pl.LazyFrame, keys: CountKeys, listed: Array) -> None:
        self._events, self._keys, self._listed = events, keys, listed
        self._counts: dict[Count, PastCount] = {}
        self._means: dict[Mean, PastMean] = {}

    def count(self, key: Key, events: Events) -> PastCount:
        """Return the counter of events by a key; see :data:`COUNTS`."""
        if (key, events) not in self._counts:
            self._counts[key, events] = count_of(self._events, self._keys, key, events)
        return self._counts[key, events]

    def mean(self, key: Mean) -> PastMean:
        """Return the means of log1p prices per key; see :data:`MEANS`."""
        if key not in self._means:
            self._means[key] = mean_of(self._events, self._keys, self._listed, key)
        return self._means[key]


class ClickCounts:
    """Counters in which the given clicks replace the users' own clicks in the log; all other counters are unchanged.

    Args:
        counts: the other counters.
        keys: keys of the items.
        users, items, times: the clicks, (E,) each.
    """

    def __init__(self, counts: EventCounts, keys: CountKeys, users: Array, items: Array, times: Array) -> None:
        self._counts = counts
        self._own = {(key, events): PastCount(keys.make(key, users, items), times) for key, events in CLICKS}

    def count(self, key: Key, events: Events) -> PastCount:
        """Return the counter of events by a key."""
        return self._own.get((key, events)) or self._counts.count(key, events)

    def mean(self, key: Mean) -> PastMean:
        """Return the means of log1p prices per key; see :data:`MEANS`."""
        return self._counts.mean(key)


def count_of(log: pl.LazyFrame, keys: CountKeys, key: Key, events: Events) -> PastCount:
    """Return the counter of the events of a log by a key; see :data:`COUNTS`."""
    kept, time = EVENTS[events]
    known = pl.col(time).fill_null(np.iinfo(np.int64).max).cast(pl.Int64)
    user, item, times = _columns(log, kept, known)
    return PastCount(keys.make(key, user, item), times)


def mean_of(log: pl.LazyFrame, keys: CountKeys, listed: Array, key: Mean) -> PastMean:
    """Return the means of the logarithm (log1p) of the prices in a log.

    The price of an event counts as the item's price for all users, and is known after the event.
    """
    user, item, time, price = _columns(log, pl.col("price").is_not_null(), pl.col("time"), pl.col("price"))
    listed = np.log1p(np.maximum(listed, 0.0))
    has, filled = np.isfinite(listed).astype(np.float64), np.nan_to_num(listed)
    base: tuple[Array, Array] = (filled, has)
    if key == "level_3":
        kinds, size = keys.codes[2], keys.sizes[2]
        base = np.bincount(kinds, filled, size), np.bincount(kinds, has, size)
    return PastMean(keys.make(key, user, item), time, np.log1p(np.maximum(price, 0.0)), base)


def _columns(log: pl.LazyFrame, kept: pl.Expr, *more: pl.Expr) -> list[Array]:
    """Return users, items and further columns of the events to keep."""
    ids = (pl.col(name).cast(pl.Int64) for name in ("user", "item"))
    frame = log.filter(kept).select(*ids, *more).collect()
    return [column.to_numpy() for column in frame.get_columns()]


def _codes(items: pl.DataFrame, column: str | None) -> Array:
    """Return dense codes of a category column, (n_items,) int64. Missing values share a code."""
    if column is None:
        return np.zeros(len(items), dtype=np.int64)
    return items[column].fill_null("").rank("dense").to_numpy().astype(np.int64) - 1
