"""Point-in-time statistics of users and items: habit, popularity, recency and price, computed only from data known
strictly before a time."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from functools import cached_property
from typing import TYPE_CHECKING, Any, Literal, Protocol
from weakref import WeakKeyDictionary

import numpy as np
from numpy.typing import ArrayLike, NDArray

from taiji.data.dataset import Dataset
from taiji.data.event_counts import ClickCounts, Count, CountKeys, EventCounts, Events, Key, LogCounts, Mean
from taiji.data.history import Prices

if TYPE_CHECKING:
    from taiji.data.settled_statistics import SettledStatistics

Array = NDArray[Any]
DAY = 86_400_000_000
WEEK, MONTH = 7 * DAY, 28 * DAY
NEVER = np.log1p(3650.0)
"""Value of a "days since" statistic if there was no such event."""
PRIOR = 10
"""Weight of the overall rate in a smoothed rate, as a number of exposures (click rates) or clicks (conversion
rates)."""
WINDOWS = {"item_clicks_28d": MONTH, "item_clicks_7d": WEEK, "item_share_of_l3_28d": MONTH, "item_shown_28d": MONTH}
"""Length of the window, in microseconds, of each statistic that counts only recent events."""
USER_LEVELS: tuple[Key, ...] = ("user_level_1", "user_level_2", "user_level_3")


class Statistics:
    """Statistics of one log, queried in batches.

    Args:
        counts: counters of the log's events.
        keys: keys by which the counters group events.
        prices: prices of items over time.
        settled: precomputed statistics of items for times after the end of the log, or None.
    """

    def __init__(
        self, counts: EventCounts, keys: CountKeys, prices: Prices, settled: SettledStatistics | None = None
    ) -> None:
        self.counts, self.keys, self.prices, self.settled = counts, keys, prices, settled

    def with_clicks(self, users: Array, items: Array, times: Array) -> Statistics:
        """Return statistics in which the given clicks, arrays of shape (E,), replace the clicks of all users.

        Of the statistics of users and pairs, only those in :data:`OWN` are then valid: the others use the user ids of
        the original log.
        """
        return Statistics(ClickCounts(self.counts, self.keys, users, items, times), self.keys, self.prices)

    def at(self, users: ArrayLike, items: ArrayLike, times: ArrayLike) -> PointInTime:
        """Return the statistics of rows, given as users, items and times, (N,) each. They are computed on access."""
        return PointInTime(self, *(np.asarray(values, dtype=np.int64) for values in (users, items, times)))

    def matrix(self, users: ArrayLike, items: ArrayLike, times: ArrayLike) -> Array:
        """Return all statistics of rows, (N, len(NAMES)) float32, using only data strictly before ``times``
        (microseconds)."""
        rows = self.at(users, items, times)
        return np.stack([rows[name] for name in NAMES], axis=1)


class PointInTime(Mapping[str, Array]):
    """Statistics of given rows by name. Each is computed on access; intermediate results that several statistics share
    are computed once.

    Statistics of the user side depend only on users and times, and statistics of the item side only on items and times.
    """

    shared: dict[object, Array] | None = None
    """Values that fields have computed for these rows, by field, for other rankers that score the same rows; see
    :attr:`taiji.data.fields.NumbersField.shared`. None shares nothing."""

    def __init__(self, statistics: Statistics, users: Array, items: Array, times: Array) -> None:
        self.of, self.user, self.item, self.time = statistics, users, items, times

    def __getitem__(self, name: str) -> Array:
        """Return one statistic, (N,) float32."""
        known = None if self.of.settled is None else self.of.settled.column(name, self)
        return np.asarray(STATISTICS[name][1](self), dtype=np.float32) if known is None else known

    def __iter__(self) -> Iterator[str]:
        """Iterate over the names."""
        return iter(STATISTICS)

    def __len__(self) -> int:
        """Return the number of statistics."""
        return len(STATISTICS)

    def spread(self, items: Array, rows: slice = slice(None)) -> PointInTime:
        """Treat rows as requests, and return the statistics of each request with each of its candidate items.

        Args:
            items: candidate items of the R requests in ``rows``, (R, M). The items of the rows themselves are ignored.
            rows: rows to use as requests.

        Returns:
            Statistics of R * M rows, request by request. Results of the user side are reused.
        """
        times = items.shape[1]

        def repeated(values: Array) -> Array:
            return np.repeat(values[rows], times)

        made = PointInTime(self.of, repeated(self.user), items.ravel(), repeated(self.time))
        made.click_prior, made.buy_prior = repeated(self.click_prior), repeated(self.buy_prior)
        clicks, last = self.user_clicks
        made.user_clicks = repeated(clicks), repeated(last)
        return made

    @cached_property
    def earliest(self) -> int:
        """Earliest time of the rows."""
        return int(self.time.min(initial=np.iinfo(np.int64).max))

    @cached_property
    def settled_rows(self) -> Array:
        """Precomputed statistics of the rows' items after the end of the log, (N, S)."""
        assert self.of.settled is not None
        return self.of.settled.values[self.item]  # type: ignore[no-any-return]

    def number(self, key: Key, events: Events) -> Array:
        """Return the number of earlier events with the same key as each row, (N,)."""
        return self.of.counts.count(key, events).number(self.of.keys.make(key, self.user, self.item), self.time)

    def last(self, key: Key, events: Events) -> tuple[Array, Array]:
        """Return the number of earlier events with the same key as each row, and the time of the last one, (N,)
        each."""
        return self.of.counts.count(key, events).before(self.of.keys.make(key, self.user, self.item), self.time)

    def recent(self, key: Key, events: Events, span: int) -> Array:
        """Return the number of events with the same key as each row in the ``span`` microseconds before it, (N,)."""
        keys = self.of.keys.make(key, self.user, self.item)
        return self.of.counts.count(key, events).between(keys, self.time - span, self.time)

    @cached_property
    def click_prior(self) -> Array:
        """Click rate of all earlier exposures, smoothed by adding one click and two exposures, (N,)."""
        clicks, shown = self.number("everything", "shown_clicked"), self.number("everything", "shown")
        return (clicks + 1) / (shown + 2)  # type: ignore[no-any-return]

    @cached_property
    def buy_prior(self) -> Array:
        """Conversion rate of all earlier clicks with a known label, smoothed by adding one conversion and two clicks,
        (N,)."""
        bought, known = self.number("everything", "bought"), self.number("everything", "known")
        return (bought + 1) / (known + 2)  # type: ignore[no-any-return]

    @cached_property
    def user_clicks(self) -> tuple[Array, Array]:
        """Number of the user's clicks, and time of the last one."""
        return self.last("user", "clicked")

    @cached_property
    def pair_clicks(self) -> tuple[Array, Array]:
        """Number of the user's clicks on the item, and time of the last one."""
        return self.last("pair", "clicked")

    @cached_property
    def month_clicks(self) -> Array:
        """Number of clicks on the item in the last 28 days."""
        return self.recent("item", "clicked", MONTH)

    @cached_property
    def level_clicks(self) -> list[tuple[Array, Array]]:
        """Number of the user's clicks in the category of the item, and time of the last one, for each level."""
        return [self.last(key, "clicked") for key in USER_LEVELS]

    @cached_property
    def price(self) -> Array:
        """Logarithm (log1p) of the last known price of the item, NaN where unknown."""
        return np.log1p(np.maximum(self.of.prices.before(self.item, self.time), 0.0))  # type: ignore[no-any-return]

    @cached_property
    def price_of_kind(self) -> Array:
        """Mean log1p of the earlier prices in the finest category of the item."""
        return self.mean_price("level_3")

    def mean_price(self, key: Mean) -> Array:
        """Return the mean log1p of the earlier prices with the same key as each row, (N,)."""
        return self.of.counts.mean(key).before(self.of.keys.make(key, self.user, self.item), self.time)

    def since(self, number: Array, last: Array) -> Array:
        """Return log1p of the days since the time ``last`` of the latest event, (N,); :data:`NEVER` where ``number`` is
        0."""
        return np.where(number > 0, np.log1p(np.maximum(self.time - last, 0) / DAY), NEVER)

    def rate(self, hits: Count, tries: Count, prior: Array) -> Array:
        """Return the log-odds of the rate of ``hits`` per try, (N,), smoothed with :data:`PRIOR` further ``tries`` at
        the rate ``prior``."""
        share = (self.number(*hits) + PRIOR * prior) / (self.number(*tries) + PRIOR)
        return np.log(share / (1 - share))  # type: ignore[no-any-return]

    def l3_share(self) -> Array:
        """Return the item's share of the clicks in its finest category in the last 28 days, (N,). One click is added to
        the clicks of the category."""
        return self.month_clicks / (self.recent("level_3", "clicked", MONTH) + 1)  # type: ignore[no-any-return]


Side = Literal["user", "item", "pair"]
STATISTICS: dict[str, tuple[Side, Callable[[PointInTime], Array]]] = {
    "user_clicks": ("user", lambda at: np.log1p(at.user_clicks[0])),
    "user_days_since": ("user", lambda at: at.since(*at.user_clicks)),
    "item_clicks": ("item", lambda at: np.log1p(at.number("item", "clicked"))),
    "item_clicks_28d": ("item", lambda at: np.log1p(at.month_clicks)),
    "item_clicks_7d": ("item", lambda at: np.log1p(at.recent("item", "clicked", WEEK))),
    "item_share_of_l3_28d": ("item", PointInTime.l3_share),
    "item_shown_28d": ("item", lambda at: np.log1p(at.recent("item", "shown", MONTH))),
    "item_click_rate": (
        "item",
        lambda at: at.rate(("item", "shown_clicked"), ("item", "shown"), at.click_prior),
    ),
    "item_conversion_rate": ("item", lambda at: at.rate(("item", "bought"), ("item", "known"), at.buy_prior)),
    "user_click_rate": (
        "user",
        lambda at: at.rate(("user", "shown_clicked"), ("user", "shown"), at.click_prior),
    ),
    "user_conversion_rate": ("user", lambda at: at.rate(("user", "bought"), ("user", "known"), at.buy_prior)),
    "pair_clicks": ("pair", lambda at: np.log1p(at.pair_clicks[0])),
    "pair_days_since": ("pair", lambda at: at.since(*at.pair_clicks)),
    "pair_shown": ("pair", lambda at: np.log1p(at.number("pair", "shown"))),
    "user_l3_clicks": ("pair", lambda at: np.log1p(at.level_clicks[2][0])),
    "user_l3_days_since": ("pair", lambda at: at.since(*at.level_clicks[2])),
    "user_l3_share": ("pair", lambda at: at.level_clicks[2][0] / (at.user_clicks[0] + 1)),
    "user_l2_clicks": ("pair", lambda at: np.log1p(at.level_clicks[1][0])),
    "user_l2_days_since": ("pair", lambda at: at.since(*at.level_clicks[1])),
    "user_l1_clicks": ("pair", lambda at: np.log1p(at.level_clicks[0][0])),
    "user_l1_share": ("pair", lambda at: at.level_clicks[0][0] / (at.user_clicks[0] + 1)),
    "price": ("item", lambda at: np.nan_to_num(np.where(np.isfinite(at.price), at.price, at.price_of_kind))),
    "price_missing": ("item", lambda at: ~np.isfinite(at.price)),
    "price_in_l3": ("item", lambda at: np.nan_to_num(at.price - at.price_of_kind)),
    "price_change": ("item", lambda at: np.nan_to_num(at.price - at.mean_price("item"))),
}
"""Side and definition of each statistic, by name.

Counts, days and prices are ``log1p`` values, and rates are log-odds of smoothed rates. The price is the last price
before the time, or else the listed price, or else the mean price in the category. The price of the exposure itself is
not used, because many logs have prices only for purchases. ``l1``, ``l2`` and ``l3`` are the first, second and finest
category levels of the items. If the data has fewer than three levels, each missing level is a single category that
contains all items. ``price_in_l3`` is the price minus the mean of the earlier prices in the category, and
``price_change`` is the price minus the mean of the earlier prices of the item.
"""
NAMES = tuple(STATISTICS)
OWN = tuple(
    name
    for name in NAMES
    if name.startswith(("user_clicks", "user_days_since", "pair_clicks", "pair_days_since", "user_l"))
)
"""Statistics that depend only on the clicks of the user."""
_BUILT: WeakKeyDictionary[Dataset, Statistics] = WeakKeyDictionary()


class PastStatistics(Protocol):
    """Source of point-in-time statistics: the log of the dataset, or the current state of a service."""

    def at(self, users: Array, items: Array, times: Array) -> Mapping[str, Array]:
        """Return the statistics by name, (N,) float32 each."""


def statistics_of(dataset: Dataset) -> Statistics:
    """Return the statistics of a dataset. They stay in memory as long as the dataset does.

    Each counter is built on first use, which takes less than a second for millions of events.
    """
    if dataset not in _BUILT:
        keys = CountKeys.of(dataset.items, dataset.levels)
        _BUILT[dataset] = Statistics(LogCounts(dataset.scan(), keys, dataset.prices.listed), keys, dataset.prices)
    return _BUILT[dataset]
