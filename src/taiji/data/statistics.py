"""Point-in-time statistics of users and items: habit, popularity, recency and price, computed only from data known strictly before a time."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from copy import copy
from functools import cached_property
from typing import Any, Literal, Protocol
from weakref import WeakKeyDictionary

import numpy as np
import polars as pl
from numpy.typing import ArrayLike, NDArray

from taiji.data.dataset import Dataset
from taiji.data.history import Prices
from taiji.data.past_counts import PastCount, PastMean

Array = NDArray[Any]
DAY = 86_400_000_000
WEEK, MONTH = 7 * DAY, 28 * DAY
NEVER = np.log1p(3650.0)
"""Value of a "days since" statistic if there was no such event."""
PRIOR = 10
"""Weight of the overall rate in a smoothed rate, as a number of exposures."""


class Statistics:
    """Counters of one dataset, built once and queried in batches.

    Args:
        events: events of the log, sorted by time.
        items: table of items.
        prices: prices of items over time.
        levels: category columns of the items, the coarsest first; events are counted by the first, the second and the finest level.
    """

    def __init__(self, events: pl.DataFrame, items: pl.DataFrame, prices: Prices, levels: Sequence[str]) -> None:
        self.n_items = len(items)
        user, item = (events[name].to_numpy().astype(np.int64) for name in ("user", "item"))
        time = events["time"].to_numpy().astype(np.int64)
        click = events["click"].to_numpy() == 1
        shown = events["exposed"].to_numpy().astype(bool)
        conversion = events["conversion"].fill_null(-1).to_numpy()
        matured = events["matured_at"].fill_null(np.iinfo(np.int64).max).to_numpy().astype(np.int64)
        known = click & (conversion >= 0)
        bought = known & (conversion == 1)

        counted = (*levels[:2], levels[-1]) if len(levels) > 2 else (*levels, *[None] * (3 - len(levels)))
        self.levels = [_codes(items, level) for level in counted]
        self.sizes = [int(level.max(initial=0)) + 1 for level in self.levels]

        def count(keys: Array, mask: Array, times: Array = time) -> PastCount:
            return PastCount(keys[mask], times[mask])

        everything, pair = np.zeros_like(user), user * self.n_items + item
        self.user_clicks, self.item_clicks, self.pair_clicks = (count(keys, click) for keys in (user, item, pair))
        self.pair_shown = count(pair, shown)
        self.user_shown, self.user_shown_clicks = count(user, shown), count(user, shown & click)
        self.item_shown, self.item_shown_clicks = count(item, shown), count(item, shown & click)
        self.all_shown, self.all_shown_clicks = count(everything, shown), count(everything, shown & click)
        self.user_known, self.user_bought = count(user, known, matured), count(user, bought, matured)
        self.item_known, self.item_bought = count(item, known, matured), count(item, bought, matured)
        self.all_known, self.all_bought = count(everything, known, matured), count(everything, bought, matured)
        self.user_level = self._per_level(user[click], item[click], time[click])
        self.l3_clicks = count(self.levels[2][item], click)

        # The price of an event is the price of the item at that time for all users; it is known after that time.
        self.prices = prices
        priced = events["price"].is_not_null().to_numpy()
        logged = np.log1p(np.maximum(events["price"].drop_nulls().to_numpy(), 0.0))
        listed = np.log1p(np.maximum(prices.listed, 0.0))
        has, filled = np.isfinite(listed).astype(np.float64), np.nan_to_num(listed)
        kinds = self.levels[2]
        base = np.bincount(kinds, filled, self.sizes[2]), np.bincount(kinds, has, self.sizes[2])
        self.item_price = PastMean(item[priced], time[priced], logged, (filled, has))
        self.l3_price = PastMean(kinds[item[priced]], time[priced], logged, base)

    def with_clicks(self, users: Array, items: Array, times: Array) -> Statistics:
        """Return statistics in which the clicks of users are replaced by the given ones, (E,) each.

        Only the statistics in :data:`OWN` are then valid, because the others use the user ids of the original log.
        """
        made = copy(self)
        made.user_clicks, made.pair_clicks = PastCount(users, times), PastCount(users * self.n_items + items, times)
        made.user_level = self._per_level(users, items, times)
        return made

    def _per_level(self, users: Array, items: Array, times: Array) -> list[PastCount]:
        return [PastCount(users * size + level[items], times) for size, level in zip(self.sizes, self.levels)]

    def at(self, users: ArrayLike, items: ArrayLike, times: ArrayLike) -> PointInTime:
        """Return the statistics for rows of users (N,), items (N,) and times (N,), which are computed on access."""
        return PointInTime(self, *(np.asarray(values, dtype=np.int64) for values in (users, items, times)))

    def matrix(self, users: ArrayLike, items: ArrayLike, times: ArrayLike) -> Array:
        """Return all statistics of rows, (N, len(NAMES)) float32, using only data strictly before ``times`` (microseconds)."""
        rows = self.at(users, items, times)
        return np.stack([rows[name] for name in NAMES], axis=1)


class PointInTime(Mapping[str, Array]):
    """Statistics of given rows by name. Each is computed on access; intermediate results that several statistics share are computed once.

    Statistics of the user side depend only on users and times, those of the item side only on items and times.
    """

    def __init__(self, statistics: Statistics, users: Array, items: Array, times: Array) -> None:
        self.of, self.user, self.item, self.time = statistics, users, items, times

    def __getitem__(self, name: str) -> Array:
        """Return one statistic, (N,) float32."""
        return np.asarray(STATISTICS[name][1](self), dtype=np.float32)

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
    def everything(self) -> Array:
        """Keys of the counters over all events."""
        return np.zeros_like(self.time)

    @cached_property
    def click_prior(self) -> Array:
        """Click rate of all earlier exposures."""
        clicks, shown = (c.before(self.everything, self.time)[0] for c in (self.of.all_shown_clicks, self.of.all_shown))
        return (clicks + 1) / (shown + 2)  # type: ignore[no-any-return]

    @cached_property
    def buy_prior(self) -> Array:
        """Conversion rate of all clicks whose label is known by then."""
        bought, known = (c.before(self.everything, self.time)[0] for c in (self.of.all_bought, self.of.all_known))
        return (bought + 1) / (known + 2)  # type: ignore[no-any-return]

    @cached_property
    def user_clicks(self) -> tuple[Array, Array]:
        """Number and last time of the user's clicks."""
        return self.of.user_clicks.before(self.user, self.time)

    @cached_property
    def pairs(self) -> Array:
        """Keys of the pairs of user and item."""
        return self.user * self.of.n_items + self.item

    @cached_property
    def pair_clicks(self) -> tuple[Array, Array]:
        """Number and last time of the user's clicks on the item."""
        return self.of.pair_clicks.before(self.pairs, self.time)

    @cached_property
    def month_clicks(self) -> Array:
        """Number of clicks on the item in the last 28 days."""
        return self.of.item_clicks.between(self.item, self.time - MONTH, self.time)

    @cached_property
    def level_clicks(self) -> list[tuple[Array, Array]]:
        """Number and last time of the user's clicks in the category of the item, for each level."""
        of = self.of
        return [
            counter.before(self.user * size + level[self.item], self.time)
            for counter, size, level in zip(of.user_level, of.sizes, of.levels)
        ]

    @cached_property
    def price(self) -> Array:
        """Logarithm (log1p) of the last known price of the item, NaN where unknown."""
        return np.log1p(np.maximum(self.of.prices.before(self.item, self.time), 0.0))  # type: ignore[no-any-return]

    @cached_property
    def price_of_kind(self) -> Array:
        """Mean of the earlier log prices in the finest category of the item."""
        return self.of.l3_price.before(self.of.levels[2][self.item], self.time)

    def since(self, last: Array) -> Array:
        """Return log1p of the days since ``last``, or :data:`NEVER` where ``last`` is 0."""
        return np.where(last > 0, np.log1p(np.maximum(self.time - last, 0) / DAY), NEVER)

    def rate(self, hits: PastCount, tries: PastCount, keys: Array, prior: Array) -> Array:
        """Return the log-odds of a smoothed rate."""
        share = (hits.before(keys, self.time)[0] + PRIOR * prior) / (tries.before(keys, self.time)[0] + PRIOR)
        return np.log(share / (1 - share))  # type: ignore[no-any-return]

    def l3_share(self) -> Array:
        """Return the share of the item in the clicks of the last 28 days in its finest category."""
        kind = self.of.l3_clicks.between(self.of.levels[2][self.item], self.time - MONTH, self.time)
        return self.month_clicks / (kind + 1)  # type: ignore[no-any-return]


Side = Literal["user", "item", "pair"]
STATISTICS: dict[str, tuple[Side, Callable[[PointInTime], Array]]] = {
    "user_clicks": ("user", lambda at: np.log1p(at.user_clicks[0])),
    "user_days_since": ("user", lambda at: at.since(at.user_clicks[1])),
    "item_clicks": ("item", lambda at: np.log1p(at.of.item_clicks.before(at.item, at.time)[0])),
    "item_clicks_28d": ("item", lambda at: np.log1p(at.month_clicks)),
    "item_clicks_7d": ("item", lambda at: np.log1p(at.of.item_clicks.between(at.item, at.time - WEEK, at.time))),
    "item_share_of_l3_28d": ("item", PointInTime.l3_share),
    "item_shown_28d": ("item", lambda at: np.log1p(at.of.item_shown.between(at.item, at.time - MONTH, at.time))),
    "item_click_rate": (
        "item",
        lambda at: at.rate(at.of.item_shown_clicks, at.of.item_shown, at.item, at.click_prior),
    ),
    "item_conversion_rate": ("item", lambda at: at.rate(at.of.item_bought, at.of.item_known, at.item, at.buy_prior)),
    "user_click_rate": (
        "user",
        lambda at: at.rate(at.of.user_shown_clicks, at.of.user_shown, at.user, at.click_prior),
    ),
    "user_conversion_rate": ("user", lambda at: at.rate(at.of.user_bought, at.of.user_known, at.user, at.buy_prior)),
    "pair_clicks": ("pair", lambda at: np.log1p(at.pair_clicks[0])),
    "pair_days_since": ("pair", lambda at: at.since(at.pair_clicks[1])),
    "pair_shown": ("pair", lambda at: np.log1p(at.of.pair_shown.before(at.pairs, at.time)[0])),
    "user_l3_clicks": ("pair", lambda at: np.log1p(at.level_clicks[2][0])),
    "user_l3_days_since": ("pair", lambda at: at.since(at.level_clicks[2][1])),
    "user_l3_share": ("pair", lambda at: at.level_clicks[2][0] / (at.user_clicks[0] + 1)),
    "user_l2_clicks": ("pair", lambda at: np.log1p(at.level_clicks[1][0])),
    "user_l2_days_since": ("pair", lambda at: at.since(at.level_clicks[1][1])),
    "user_l1_clicks": ("pair", lambda at: np.log1p(at.level_clicks[0][0])),
    "user_l1_share": ("pair", lambda at: at.level_clicks[0][0] / (at.user_clicks[0] + 1)),
    "price": ("item", lambda at: np.nan_to_num(np.where(np.isfinite(at.price), at.price, at.price_of_kind))),
    "price_missing": ("item", lambda at: ~np.isfinite(at.price)),
    "price_in_l3": ("item", lambda at: np.nan_to_num(at.price - at.price_of_kind)),
    "price_change": ("item", lambda at: np.nan_to_num(at.price - at.of.item_price.before(at.item, at.time))),
}
"""Name to side and definition. Counts and days are ``log1p``, and rates are log-odds of smoothed rates. The price is ``log1p`` of the last price
before the time, or else of the listed price, or else of the mean price in the category. The price of the exposure itself is not used, because
many logs have prices only for purchases.
``l1``, ``l2`` and ``l3`` are the first, second and finest category levels of the items.
``price_in_l3`` and ``price_change`` are the differences between the price and the earlier mean prices of the category and of the item."""
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
    """Return the statistics of a dataset. They are built on the first call (a few seconds for millions of events) and kept as long as the dataset."""
    if dataset not in _BUILT:
        _BUILT[dataset] = Statistics(dataset.events, dataset.items, dataset.prices, dataset.levels)
    return _BUILT[dataset]


def _codes(items: pl.DataFrame, column: str | None) -> Array:
    """Return dense codes of a category column, (n_items,) int64. Missing values share a code."""
    if column is None:
        return np.zeros(len(items), dtype=np.int64)
    return items[column].fill_null("").rank("dense").to_numpy().astype(np.int64) - 1
