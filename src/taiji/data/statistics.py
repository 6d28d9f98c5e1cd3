"""Numeric features of a (user, item, moment): habit, popularity, recency, price; all known strictly before the moment."""

from __future__ import annotations

from typing import Any

import numpy as np

from taiji.data.past_counts import Clock, PastCount, PastMean

DAY = 86_400_000_000
NEVER = np.log1p(3650.0)
"""Value of a "days since" feature when it never happened."""
NAMES = (
    "user_clicks",
    "user_days_since",
    "item_clicks",
    "item_clicks_28d",
    "item_clicks_7d",
    "item_share_of_l3_28d",
    "item_shown_28d",
    "item_click_rate",
    "item_conversion_rate",
    "user_click_rate",
    "user_conversion_rate",
    "pair_clicks",
    "pair_days_since",
    "pair_shown",
    "user_l3_clicks",
    "user_l3_days_since",
    "user_l3_share",
    "user_l2_clicks",
    "user_l2_days_since",
    "user_l1_clicks",
    "user_l1_share",
    "price",
    "price_missing",
    "price_in_l3",
    "price_change",
)
"""Columns of :meth:`NumericFeatures.matrix`; counts and days are ``log1p``, rates are log-odds of smoothed shares, price is ``log1p``
of the last price seen anywhere before the moment (else the listed one, else the mean of the category): an exposure's own
price is not read, for in many logs it stands only where something was bought.
``price_in_l3`` and ``price_change`` are its differences from the mean so far of the category and of the item."""


class NumericFeatures:
    """Point-in-time statistics of one data set, built once and queried in batches."""

    def __init__(self, dataset: Any) -> None:
        events, items = dataset.events, dataset.items
        self.n_items = len(items)
        user, item = (events[name].to_numpy().astype(np.int64) for name in ("user", "item"))
        time = events["time"].to_numpy().astype(np.int64)
        click = events["click"].to_numpy() == 1
        shown = events["exposed"].to_numpy().astype(bool)
        conversion = events["conversion"].fill_null(-1).to_numpy()
        matured = events["matured_at"].fill_null(np.iinfo(np.int64).max).to_numpy().astype(np.int64)
        judged = click & (conversion >= 0)
        bought = judged & (conversion == 1)

        self.levels = [_codes(items, f"category_l{level}") for level in (1, 2, 3)]
        self.sizes = [int(level.max(initial=0)) + 1 for level in self.levels]
        self.clock = Clock(np.concatenate([time, matured[judged]]))

        def count(keys: np.ndarray, mask: np.ndarray, times: np.ndarray = time) -> PastCount:
            return PastCount(self.clock, keys[mask], times[mask])

        everything = np.zeros_like(user)
        self.user_clicks, self.item_clicks = count(user, click), count(item, click)
        self.pair_clicks, self.pair_shown = (
            count(user * self.n_items + item, click),
            count(user * self.n_items + item, shown),
        )
        self.user_shown, self.user_shown_clicks = count(user, shown), count(user, shown & click)
        self.item_shown, self.item_shown_clicks = count(item, shown), count(item, shown & click)
        self.all_shown, self.all_shown_clicks = count(everything, shown), count(everything, shown & click)
        self.user_judged, self.user_bought = count(user, judged, matured), count(user, bought, matured)
        self.item_judged, self.item_bought = count(item, judged, matured), count(item, bought, matured)
        self.all_judged, self.all_bought = count(everything, judged, matured), count(everything, bought, matured)
        self.user_level = [count(user * size + level[item], click) for size, level in zip(self.sizes, self.levels)]
        self.l3_clicks = count(self.levels[2][item], click)

        # A price on an event says what the item cost at that time, to whomever; it is known from the next moment on.
        self.prices = dataset.prices
        priced = events["price"].is_not_null().to_numpy()
        logged = np.log1p(np.maximum(events["price"].drop_nulls().to_numpy(), 0.0))
        listed = np.log1p(np.maximum(self.prices.listed, 0.0))
        has, filled = np.isfinite(listed).astype(np.float64), np.nan_to_num(listed)
        kinds = self.levels[2]
        base = np.bincount(kinds, filled, self.sizes[2]), np.bincount(kinds, has, self.sizes[2])
        self.item_price = PastMean(self.clock, item[priced], time[priced], logged, (filled, has))
        self.l3_price = PastMean(self.clock, kinds[item[priced]], time[priced], logged, base)

    def matrix(self, users: np.ndarray, items: np.ndarray, as_ofs: np.ndarray) -> np.ndarray:
        """Features of rows: (N, len(NAMES)) float32, reading nothing at or after ``as_ofs`` (microseconds)."""
        users, items, as_ofs = (np.asarray(values, dtype=np.int64) for values in (users, items, as_ofs))
        now = self.clock.rank(as_ofs)
        week, month = self.clock.rank(as_ofs - 7 * DAY), self.clock.rank(as_ofs - 28 * DAY)
        everything = np.zeros_like(users)

        def since(last: np.ndarray) -> np.ndarray:
            return np.where(last > 0, np.log1p(np.maximum(as_ofs - last, 0) / DAY), NEVER)

        def rate(hits: PastCount, tries: PastCount, keys: np.ndarray, prior: np.ndarray) -> np.ndarray:
            share = (hits.before(keys, now)[0] + 10 * prior) / (tries.before(keys, now)[0] + 10)
            return np.log(share / (1 - share))

        click_prior = (self.all_shown_clicks.before(everything, now)[0] + 1) / (
            self.all_shown.before(everything, now)[0] + 2
        )
        buy_prior = (self.all_bought.before(everything, now)[0] + 1) / (self.all_judged.before(everything, now)[0] + 2)
        pairs = users * self.n_items + items
        user_clicks, user_last = self.user_clicks.before(users, now)
        pair_clicks, pair_last = self.pair_clicks.before(pairs, now)
        month_clicks = self.item_clicks.between(items, month, now)
        levels = [
            counter.before(users * size + level[items], now)
            for counter, size, level in zip(self.user_level, self.sizes, self.levels)
        ]
        price = np.log1p(np.maximum(self.prices.before(items, as_ofs), 0.0))
        usual, of_kind = self.item_price.before(items, now), self.l3_price.before(self.levels[2][items], now)
        columns = {
            "user_clicks": np.log1p(user_clicks),
            "user_days_since": since(user_last),
            "item_clicks": np.log1p(self.item_clicks.before(items, now)[0]),
            "item_clicks_28d": np.log1p(month_clicks),
            "item_clicks_7d": np.log1p(self.item_clicks.between(items, week, now)),
            "item_share_of_l3_28d": month_clicks / (self.l3_clicks.between(self.levels[2][items], month, now) + 1),
            "item_shown_28d": np.log1p(self.item_shown.between(items, month, now)),
            "item_click_rate": rate(self.item_shown_clicks, self.item_shown, items, click_prior),
            "item_conversion_rate": rate(self.item_bought, self.item_judged, items, buy_prior),
            "user_click_rate": rate(self.user_shown_clicks, self.user_shown, users, click_prior),
            "user_conversion_rate": rate(self.user_bought, self.user_judged, users, buy_prior),
            "pair_clicks": np.log1p(pair_clicks),
            "pair_days_since": since(pair_last),
            "pair_shown": np.log1p(self.pair_shown.before(pairs, now)[0]),
            "user_l3_clicks": np.log1p(levels[2][0]),
            "user_l3_days_since": since(levels[2][1]),
            "user_l3_share": levels[2][0] / (user_clicks + 1),
            "user_l2_clicks": np.log1p(levels[1][0]),
            "user_l2_days_since": since(levels[1][1]),
            "user_l1_clicks": np.log1p(levels[0][0]),
            "user_l1_share": levels[0][0] / (user_clicks + 1),
            "price": np.nan_to_num(np.where(np.isfinite(price), price, of_kind)),
            "price_missing": ~np.isfinite(price),
            "price_in_l3": np.nan_to_num(price - of_kind),
            "price_change": np.nan_to_num(price - usual),
        }
        return np.stack([np.asarray(columns[name], dtype=np.float32) for name in NAMES], axis=1)


def _codes(items: Any, column: str) -> np.ndarray:
    """Dense codes of a category column, (n_items,) int64; a missing level is a code of its own."""
    if column not in items.columns:
        return np.zeros(len(items), dtype=np.int64)
    return items[column].fill_null("").rank("dense").to_numpy().astype(np.int64) - 1
