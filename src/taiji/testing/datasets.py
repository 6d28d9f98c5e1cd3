"""Checkerboard of users and items: a log with one provably correct answer that every model must find."""

from __future__ import annotations

from datetime import datetime, timedelta

import numpy as np
import polars as pl

from taiji.core.component import Requests
from taiji.data.dataset import Dataset
from taiji.data.schema import Tables

START = datetime(2024, 1, 1)


def checkerboard(users: int = 24, items: int = 20, rounds: int = 6, seed: int = 0) -> Dataset:
    """Return a log in which user u clicks item i if and only if u + i is even.

    Even users and even items are white, and odd users and odd items are black. Every round shows every user half of the
    items, in random order and one hour apart; a click converts if the item's number is divisible by four. Ids,
    categories, history and co-occurrence all lead to the same correct prediction: a user clicks exactly the items of
    the user's own colour.

    Args:
        users, items: numbers of users and of items.
        rounds: passes over all users.
        seed: seed of the exposures.
    """
    random = np.random.default_rng(seed)
    shown = [
        (user, int(item))
        for _ in range(rounds)
        for user in random.permutation(users)
        for item in random.permutation(items)[: items // 2]
    ]
    user, item = np.array(shown).T
    click = ((user + item) % 2 == 0).astype(np.int8)
    times = [START + timedelta(hours=place) for place in range(len(shown))]
    return Dataset.from_tables(
        Tables(
            items=pl.DataFrame(
                {
                    "item_id": [f"i{i}" for i in range(items)],
                    "title": [f"{'black' if i % 2 else 'white'} piece {i}" for i in range(items)],
                    "category_l1": ["black" if i % 2 else "white" for i in range(items)],
                }
            ),
            users=pl.DataFrame({"user_id": [f"u{u}" for u in range(users)]}),
            events=pl.DataFrame(
                {
                    "user_id": [f"u{u}" for u in user],
                    "item_id": [f"i{i}" for i in item],
                    "timestamp": times,
                    "click": click,
                    "conversion": (click * (item % 4 == 0)).astype(np.int8),
                }
            ),
            name="checkerboard",
        )
    )


def exposures_of(dataset: Dataset) -> pl.DataFrame:
    """Return every exposed row of a log with its labels, in the form of training rows."""
    return dataset.events.filter("exposed").drop("exposed", "matured_at")


def requests_of(dataset: Dataset, count: int = 8) -> Requests:
    """Return requests of the first users, just after the log's end."""
    users = np.arange(min(count, dataset.n_users))
    last = int(dataset.events["time"].max())  # type: ignore[arg-type]
    return Requests(users, np.full(len(users), last + 1))


def evenly_spaced(count: int, most: int) -> list[int]:
    """Return up to ``most`` different, evenly spaced positions below ``count``, ascending."""
    return np.unique(np.linspace(0, count - 1, min(most, count)).astype(np.int64)).tolist()  # type: ignore[no-any-return]
