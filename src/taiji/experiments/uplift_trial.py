"""Candidate items of a log on which the rankers of the uplift ladder are trained and tested.

Positives are each user's first interactions with items. Negatives are items with which others interacted in the same
time window.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from taiji.core.errors import InputError
from taiji.data.dataset import Dataset
from taiji.data.event_columns import NO_COLUMNS
from taiji.data.item_text import item_texts
from taiji.data.vocabulary import stable_hash

Array = NDArray[Any]
NEGATIVES = 4
"""Negatives per interaction, drawn from the items with which others interacted in the same window."""
FIRST, TEST = 0.3, 0.8
"""Shares of the first interactions, in time order, after which the candidates begin (FIRST) and the test period begins
(TEST)."""
WINDOWS = 20
"""Number of time windows of the candidates."""
REFRESHES = 4
"""Number of refreshes of item statistics in the training period, the last one at its end. At most ``REFRESHES − 1``
more follow in the test period."""
FEWEST_ROWS = 200
"""Smallest number of first interactions in training and test together."""


@dataclass(frozen=True, eq=False)
class Trial:
    """Candidates of one log.

    Attributes:
        dataset: the log reduced to each user's first interaction with each item.
        train, test: ``user, item, time, click``, in time order.
        cut: start of the test period (microseconds).
        refreshes: times in the test period at which fields are refreshed.
    """

    dataset: Dataset
    train: pl.DataFrame
    test: pl.DataFrame
    cut: int
    refreshes: tuple[int, ...]

    @classmethod
    def of(cls, dataset: Dataset, *, most: int | None = None, seed: int = 0) -> Trial:
        """Return the trial of a log: draw its candidates, and split them by time.

        Args:
            dataset: any log.
            most: approximate largest number of candidates. Positives are sampled, each together with its negatives.
            seed: seed of candidates and sample.

        Raises:
            InputError: there are too few first interactions after the initial part of the log, or they have too few
                different times.
        """
        clicks = dataset.events.filter(pl.col("click") == 1)
        first = clicks.unique(["user", "item"], keep="first", maintain_order=True)
        touched = first.drop("event").with_row_index("event").with_columns(exposed=pl.lit(True))
        user, item, time = (touched[name].to_numpy().astype(np.int64) for name in ("user", "item", "time"))
        start = int(np.searchsorted(time, time[int(FIRST * len(time))])) if len(time) else 0
        if len(time) - start < FEWEST_ROWS or time[start] == time[-1]:
            raise InputError(
                "The log is too short for a ladder.",
                where=f"data {dataset.name}",
                expected=f"at least {FEWEST_ROWS} first interactions with items after the first {FIRST:.0%} of these, at different times",
                found=f"{len(time) - start} of {len(time)}",
            )
        random = np.random.default_rng(seed)
        parts = [
            _window(user, item, time, slice(a, b), dataset.n_items, random) for a, b in _windows(time, start) if b > a
        ]
        rows = pl.concat(parts)
        if most is not None and len(rows) > most:
            share = most / len(rows)
            kept = random.random(len(time)) < share
            rows = rows.filter(pl.Series(kept[rows["group"].to_numpy()]))
        rows = rows.sort("time", maintain_order=True)
        cut = int(time[int(TEST * len(time))])
        later = np.quantile(time[time >= cut], np.arange(1, REFRESHES) / REFRESHES, method="lower")
        plain = Dataset(
            dataset.items,
            dataset.users,
            touched.select("event", "user", "item", "time", "exposed", "click", "conversion", "matured_at", "price"),
            dataset.name,
            dataset.domain,
            (),
            NO_COLUMNS,
            dataset.levels,
        )
        refreshes = tuple(sorted({int(at) for at in later if at > cut}))
        train, test = rows.filter(pl.col("time") < cut), rows.filter(pl.col("time") >= cut)
        if test.is_empty() or train.is_empty() or late_from(train) == train["time"][0]:
            raise InputError(
                "The log has too few different times for a ladder.",
                where=f"data {dataset.name}",
                expected="first interactions at several times in the training period, and later ones for the test",
                found=f"{train['time'].n_unique()} times before the test period, {test['time'].n_unique()} in it",
            )
        return cls(plain, train, test, cut, refreshes)

    @cached_property
    def cold(self) -> Array:
        """Mask of the test rows whose item has no interaction before the test period."""
        past = self.dataset.events.filter(pl.col("time") < self.cut)["item"].to_numpy()
        return np.bincount(past, minlength=self.dataset.n_items)[self.test["item"].to_numpy()] == 0

    @cached_property
    def sparse(self) -> Array:
        """Mask of the third of the test rows (more with ties) whose users had the shortest histories at the row's
        time."""
        users, times = (self.test[name].to_numpy() for name in ("user", "time"))
        known = self.dataset.history.count_before(users, times)
        return known <= np.quantile(known, 1 / 3)

    def strata(self) -> dict[str, Array]:
        """Return masks of the test rows by stratum: all, cold items, sparse users, both."""
        every = np.ones(len(self.test), dtype=bool)
        return {"all": every, "cold items": self.cold, "sparse": self.sparse, "both": self.cold & self.sparse}


def late_from(train: pl.DataFrame) -> int:
    """Return the time at which the latest 15 % of the training rows begin. These rows are held out for early
    stopping."""
    return int(train["time"].quantile(0.85, interpolation="lower") or 0)


def _windows(time: Array, start: int) -> list[tuple[int, int]]:
    """Return (first, end) positions of windows of about equal size over the interactions from ``start`` on.

    Interactions with equal timestamps are in the same window.
    """
    places = start + (len(time) - start) * np.arange(1, WINDOWS) // WINDOWS
    bounds = [start, *np.searchsorted(time, time[places]), len(time)]
    return [(int(a), int(b)) for a, b in pairwise(bounds)]


def _window(
    user: Array, item: Array, time: Array, part: slice, items: int, random: np.random.Generator
) -> pl.DataFrame:
    """Return a window's first interactions, each with up to :data:`NEGATIVES` items of other users in the window
    with which the user never interacts."""
    group = np.arange(part.start, part.stop)
    own = np.sort(user * items + item)
    asked = np.repeat(group, NEGATIVES)
    drawn = np.full(len(asked), -1)
    open_ = np.arange(len(asked))
    for _ in range(20):
        found = item[part][random.integers(0, part.stop - part.start, len(open_))]
        keys = user[asked[open_]] * items + found
        free = own[np.minimum(np.searchsorted(own, keys), len(own) - 1)] != keys
        drawn[open_[free]] = found[free]
        open_ = open_[~free]
    there = drawn >= 0
    groups = np.concatenate([group, asked[there]])
    return pl.DataFrame(
        {
            "user": user[groups],
            "item": np.concatenate([item[part], drawn[there]]),
            "time": time[groups],
            "click": np.concatenate([np.ones(len(group)), np.zeros(int(there.sum()))]).astype(np.int8),
            "group": groups,
        }
    )


def log_facts(trial: Trial) -> dict[str, float]:
    """Return the facts about a log that the decision table needs; they require no training.

    ``new_items``: share of test interactions whose item has no interaction before the test period. ``history``: median
    number of distinct items of a user before a test interaction. ``distinct_titles``: number of distinct texts divided
    by the number of items. ``words``: mean number of words in a text. ``users``, ``items``: numbers of users and items
    with a test interaction.
    """
    events = trial.dataset.events
    taken = events.filter((pl.col("click") == 1) & (pl.col("time") >= trial.cut))  # all of them, not a sample
    texts = item_texts(trial.dataset)
    lengths = [len(text.split()) for text in texts]
    known = trial.dataset.history.count_before(taken["user"].to_numpy(), taken["time"].to_numpy())
    return {
        "users": taken["user"].n_unique(),
        "items": taken["item"].n_unique(),
        "new_items": float(trial.cold[(trial.test["click"] == 1).to_numpy()].mean()),
        "history": float(np.median(known)),
        "distinct_titles": len(np.unique(stable_hash(texts))) / max(len(texts), 1),
        "words": float(np.mean(lengths)) if lengths else 0.0,
    }
