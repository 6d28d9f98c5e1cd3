"""A synthetic shop with known tastes: a log to learn from, and the true click probabilities of any exposure.

Every item has a hidden theme, and every user a hidden taste over themes. Users find tail items on their own (history
without exposures) and are shown promoted items at random (exposures with labels). A tail item is found too rarely for
its id to be informative. The taste of a new user can therefore only be inferred from the *titles* of the items found,
which contain theme words ("Alpine lamp"); categories name the kind of item, not its theme. In the negative control, the
theme words are permuted among items: events, prices and categories stay the same, but the titles are uninformative.

The shop is invented; its results say nothing about real shoppers.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import cached_property
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from taiji.data.schema import Tables
from taiji.world.settings import ShopSettings

Array = NDArray[Any]
OPENING = datetime(2024, 1, 1)
HORIZON = timedelta(days=2)
"""Time after a click until it is known whether it converts."""
THEMES = (
    ("Alpine", "Summit", "Glacier", "Hiking", "Mountain", "Trail"),
    ("Ocean", "Sailing", "Harbour", "Surf", "Coral", "Nautical"),
    ("Jazz", "Guitar", "Vinyl", "Concert", "Melody", "Piano"),
    ("Garden", "Orchid", "Botanical", "Rose", "Herb", "Greenhouse"),
    ("Space", "Rocket", "Galaxy", "Lunar", "Astronaut", "Comet"),
    ("Medieval", "Castle", "Knight", "Dragon", "Viking", "Royal"),
    ("Football", "Stadium", "Goalkeeper", "Champion", "League", "Athletic"),
    ("Bakery", "Espresso", "Chocolate", "Vanilla", "Cinnamon", "Pastry"),
)
ITEM_KINDS = (
    ("HOME", "LIGHT", "LAMP"),
    ("HOME", "TEXTILE", "CUSHION"),
    ("HOME", "TEXTILE", "BLANKET"),
    ("KITCHEN", "DRINK", "MUG"),
    ("KITCHEN", "DRINK", "BOTTLE"),
    ("KITCHEN", "COOKING", "APRON"),
    ("PAPER", "WRITING", "NOTEBOOK"),
    ("PAPER", "WRITING", "CALENDAR"),
    ("PAPER", "WALL", "POSTER"),
    ("CLOTHING", "TOPS", "SHIRT"),
    ("CLOTHING", "HEAD", "CAP"),
    ("CLOTHING", "FEET", "SOCKS"),
)


@dataclass(frozen=True)
class Shop:
    """A shop, determined by its settings and seed."""

    settings: ShopSettings
    seed: int

    @property
    def n_items(self) -> int:
        """Number of items. Promoted items come first, followed by the tail."""
        return self.settings.promoted + self.settings.tail

    @cached_property
    def themes(self) -> Array:
        """(n_items,) hidden theme of every item."""
        return self._rng(1).integers(len(THEMES), size=self.n_items)

    @cached_property
    def tastes(self) -> Array:
        """(users, themes) hidden taste: weight 0.8 on one favourite theme, and 0.2 spread evenly over all themes."""
        favourite = self._rng(2).integers(len(THEMES), size=self.settings.users)
        return 0.8 * np.eye(len(THEMES))[favourite] + 0.2 / len(THEMES)

    @cached_property
    def keenness(self) -> Array:
        """(users,) general level of a user's clicks and purchases, on the logit scale."""
        return self._rng(3).normal(0, 0.5, size=self.settings.users)

    @cached_property
    def prices(self) -> Array:
        """(n_items,) prices."""
        return np.round(self._rng(4).lognormal(2.5, 0.5, size=self.n_items), 2)

    @cached_property
    def appeal(self) -> Array:
        """(n_items,) general appeal of an item, on the logit scale."""
        return self._rng(5).normal(0, 0.4, size=self.n_items)

    def click_probability(self, users: Array, items: Array) -> Array:
        """Return the true P(click) of users (N,) who are shown items (N,)."""
        return _sigmoid(-3.0 + 2.8 * self.tastes[users, self.themes[items]] + self.appeal[items] + self.keenness[users])

    def conversion_probability(self, users: Array, items: Array) -> Array:
        """Return the true P(conversion | click) of users (N,) who are shown items (N,)."""
        return _sigmoid(-1.5 + 2.0 * self.tastes[users, self.themes[items]] + 0.5 * self.keenness[users])

    def tables(self) -> Tables:
        """Return the log as :class:`~taiji.data.schema.Tables`. The ids are the shop's user and item indices."""
        kind = self._rng(6).integers(len(ITEM_KINDS), size=self.n_items)
        told = self.themes if self.settings.telling_text else self.themes[self._rng(7).permutation(self.n_items)]
        word = self._rng(8).integers(len(THEMES[0]), size=self.n_items)
        items = pl.DataFrame(
            {
                "item_id": np.arange(self.n_items),
                "title": [f"{THEMES[t][w]} {ITEM_KINDS[k][2].lower()}" for t, w, k in zip(told, word, kind)],
                **{f"category_l{level + 1}": [ITEM_KINDS[k][level] for k in kind] for level in range(3)},
                "price": self.prices,
            }
        )
        note = "Synthetic shop: hidden tastes, simulated responses." + (
            ""
            if self.settings.telling_text
            else " Negative control: the theme words of the titles are permuted among items."
        )
        users = pl.DataFrame({"user_id": np.arange(self.settings.users)})
        return Tables(
            items,
            users,
            pl.concat([self._found(), self._shown()]),
            "shop" if self.settings.telling_text else "shop-null",
            "shop",
            (note,),
        )

    @cached_property
    def requests(self) -> tuple[Array, Array]:
        """Return users (R,) and times in days (R,) of all requests. Every user makes at least one."""
        rng, s = self._rng(9), self.settings
        count = 1 + rng.poisson(s.visits, size=s.users)
        user = np.repeat(np.arange(s.users), count)
        return user, np.minimum(self._joined[user] + 3 + rng.exponential(3.0, size=len(user)), s.days - 1e-3)

    @cached_property
    def _joined(self) -> Array:
        """Return the day on which each user arrives, (users,)."""
        return self._rng(10).uniform(0, max(self.settings.days - 10, 1), size=self.settings.users)

    def _found(self) -> pl.DataFrame:
        """Return the clicks without an exposure, on tail items that users find on their own.

        A find is drawn in two steps: a theme from the user's taste, then a uniform tail item of this theme.
        """
        rng, s = self._rng(11), self.settings
        count = 2 + rng.poisson(s.finds * np.exp(self.keenness - 0.125), size=s.users)
        user = np.repeat(np.arange(s.users), count)
        theme = (self.tastes[user].cumsum(axis=1) < rng.random((len(user), 1))).sum(axis=1).clip(max=len(THEMES) - 1)
        tail = np.arange(s.promoted, self.n_items)
        order = tail[np.argsort(self.themes[tail], kind="stable")]
        first = np.searchsorted(self.themes[order], np.arange(len(THEMES) + 1))
        size = np.maximum(first[theme + 1] - first[theme], 1)
        item = order[np.minimum(first[theme] + (rng.random(len(user)) * size).astype(int), len(order) - 1)]
        day = np.minimum(self._joined[user] + rng.exponential(3.0, size=len(user)), s.days - 1e-3)
        return self._events(user, item, day, exposed=False, click=np.ones(len(user)), conversion=np.zeros(len(user)))

    def _shown(self) -> pl.DataFrame:
        """Return the exposures: random promoted items at every request, with responses from the true probabilities."""
        rng, shown = self._rng(12), min(self.settings.shown, self.settings.promoted)
        user, day = self.requests
        offered = rng.random((len(user), self.settings.promoted)).argsort(axis=1)[:, :shown]
        user, day, item = np.repeat(user, shown), np.repeat(day, shown), offered.ravel()
        click = rng.random(len(user)) < self.click_probability(user, item)
        conversion = click & (rng.random(len(user)) < self.conversion_probability(user, item))
        return self._events(user, item, day, exposed=True, click=click, conversion=conversion)

    def _events(
        self, user: Array, item: Array, day: Array, *, exposed: bool, click: Array, conversion: Array
    ) -> pl.DataFrame:
        start = int((OPENING - datetime(1970, 1, 1)).total_seconds()) * 1_000_000
        time = pl.Series((start + day * 86_400e6).astype(np.int64)).cast(pl.Datetime("us"))
        clicked = np.asarray(click).astype(np.int8)
        return pl.DataFrame(
            {
                "user_id": user,
                "item_id": item,
                "timestamp": time,
                "exposed": np.full(len(user), exposed),
                "click": clicked,
                "conversion": np.asarray(conversion).astype(np.int8),
                "price": self.prices[item],
            }
        ).with_columns(
            matured_at=pl.when(pl.col("click") == 1).then(pl.col("timestamp") + HORIZON).otherwise(pl.col("timestamp"))
        )

    def _rng(self, part: int) -> np.random.Generator:
        """Return the random generator of one part of the shop.

        Parts have separate generators, so that the negative control differs only in its titles.
        """
        return np.random.default_rng([self.seed, part])


def _sigmoid(values: Array) -> Array:
    return np.asarray(1 / (1 + np.exp(-values)))
