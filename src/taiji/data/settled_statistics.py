"""Statistics of items after the end of a log, when no event can change them any more.

They are stored as one row per item, so that a request needs no search in the counters.

A service answers current requests from a log that has ended. The statistics of a time window settle once the window
begins after the last event.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from taiji.data.event_counts import EventCounts, Events, Key, Mean
from taiji.data.past_counts import PastCount, PastMean
from taiji.data.statistics import STATISTICS, WINDOWS, PointInTime, Statistics

Array = NDArray[Any]
ITEM_STATISTICS = tuple(name for name, (side, _) in STATISTICS.items() if side == "item")
ROWS = 65_536
"""Number of items computed at a time."""
NEVER = 2**62
"""Times from this value on mark labels that never become known. A statistic that may change until such a time never
settles, and is left out."""


@dataclass(frozen=True, eq=False)
class SettledStatistics:
    """Statistics of all items. Each statistic is valid at any time after its end.

    Attributes:
        values: values of S statistics, (n_items, S) float32.
        ends: end of each statistic, by name in the order of the columns: the last time (microseconds) at which it may
            still change.
    """

    values: Array
    ends: Mapping[str, int]

    def column(self, name: str, rows: PointInTime) -> Array | None:
        """Return a statistic of rows, (N,) float32; None if it is not stored, or has not settled before the earliest
        time of the rows."""
        end = self.ends.get(name)
        if end is None or rows.earliest <= end:
            return None
        return rows.settled_rows[:, tuple(self.ends).index(name)]  # type: ignore[no-any-return]


class _Recorder:
    """Counters (:class:`taiji.data.event_counts.EventCounts`) that record the names of the counters that are read."""

    def __init__(self, counts: EventCounts) -> None:
        self._counts = counts
        self.read: set[str] = set()

    def count(self, key: Key, events: Events) -> PastCount:
        """Return a counter, and record its name."""
        self.read.add(f"{key}-{events}")
        return self._counts.count(key, events)

    def mean(self, key: Mean) -> PastMean:
        """Return means of prices, and record their name."""
        self.read.add(f"{key}-price")
        return self._counts.mean(key)


def settled(statistics: Statistics, n_items: int, until: Mapping[str, int]) -> SettledStatistics:
    """Return the statistics of all items after the end of the log.

    Args:
        statistics: statistics of the log.
        n_items: number of items.
        until: for each counter, by the name ``key-events`` or ``key-price``, a time after which it has no event.
    """
    ends = {name: _end(statistics, name, until) for name in ITEM_STATISTICS if n_items}
    ends = {name: end for name, end in ends.items() if end < NEVER}
    values = np.empty((n_items, len(ends)), dtype=np.float32)
    for start in range(0, n_items, ROWS):
        items = np.arange(start, min(start + ROWS, n_items))
        for place, (name, end) in enumerate(ends.items()):
            values[items, place] = statistics.at(np.zeros_like(items), items, np.full(len(items), end + 1))[name]
    return SettledStatistics(values, ends)


def _end(statistics: Statistics, name: str, until: Mapping[str, int]) -> int:
    """Return the last time at which a statistic may change: the last event of the counters that it reads, plus the
    length of its window."""
    counts = _Recorder(statistics.counts)
    one = np.zeros(1, np.int64)
    Statistics(counts, statistics.keys, statistics.prices).at(one, one, one)[name]
    # Prices may change until the last priced event, which is also the last event of the counter item-price.
    return max(until[read] for read in {*counts.read, "item-price"}) + WINDOWS.get(name, 0)
