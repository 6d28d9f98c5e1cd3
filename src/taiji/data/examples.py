"""Prompt examples: (user, cutoff, target) triples whose prompt may read only what came strictly before the cutoff."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import polars as pl
from numpy.typing import NDArray

from taiji.core.errors import InputError
from taiji.data.dataset import Dataset
from taiji.data.history import untouched
from taiji.data.settings import ExampleSettings
from taiji.data.splits import Split

INTERACTIONS = 2_000_000
"""Interactions looked at together; users are never torn apart."""


def make_examples(dataset: Dataset, split: Split, period: str, settings: ExampleSettings, seed: int) -> pl.DataFrame:
    """Choose a period's examples.

    The cutoff ``as_of`` is the time of the target's event. Where several targets share user and cutoff (one basket) one
    is drawn. Every choice depends only on a pseudo-random key of (seed, user, cutoff, item), so that events elsewhere in
    the log do not change it.

    Args:
        dataset: the log.
        split: its periods.
        period: one of :data:`taiji.data.splits.PERIODS`.
        settings: target, minimal history, caps.
        seed: random seed of the choice.

    Returns:
        ``example`` (text, unique), ``user`` (u32), ``as_of`` (i64), ``target`` (dense item, u32), ``period``,
        ``user_id`` and ``target_id`` (as text), sorted by (as_of, user).

    Raises:
        InputError: when no example is left.
    """
    parts = [
        example_candidates(dataset, split, period, settings, seed, *users)
        for users in dataset.history.ranges(INTERACTIONS)
    ]
    return choose_examples(dataset, pl.concat(parts), period, settings)


def example_candidates(
    dataset: Dataset, split: Split, period: str, settings: ExampleSettings, seed: int, first: int, last: int
) -> pl.DataFrame:
    """Return the rows that users ``[first, last)`` contribute to :func:`make_examples`: ``user, as_of, target, key``; other users are not read."""
    start, end = split.interval(period)
    history = dataset.history.part(first, last)
    users = np.repeat(np.arange(history.n_users, dtype=np.int64), np.diff(history.offsets))
    keep = (history.times >= start) & (history.times < end)
    if settings.target == "next_new_item":
        keep &= untouched(users, history.items, history.times)
    users, items, times = users[keep], history.items[keep], history.times[keep]
    keep = history.count_before(users, times) >= settings.min_history
    users, items, times = users[keep] + first, items[keep], times[keep]
    frame = pl.DataFrame({"user": users, "as_of": times, "target": items, "key": _keys(seed, users, times, items)})
    frame = frame.sort("key", "user", "as_of", "target").unique(["user", "as_of"], keep="first", maintain_order=True)
    if settings.per_user is not None:
        frame = frame.filter(pl.int_range(pl.len()).over("user") < settings.per_user)
    return frame


def choose_examples(dataset: Dataset, frame: pl.DataFrame, period: str, settings: ExampleSettings) -> pl.DataFrame:
    """The examples among all users' candidates; see :func:`make_examples`."""
    if frame.is_empty():
        raise InputError(
            f"No example is left in the period {period!r}.",
            where=f"data {dataset.name}",
            expected=f"users with {settings.min_history} interactions before a target ({settings.target})",
            found="none",
            fix="lower examples.min_history, keep more users (data.users), or give the period more of split.fractions",
        )
    if settings.limit is not None:
        frame = frame.sort("key", "user", "as_of", "target").head(settings.limit)
    return (
        frame.with_columns(
            dataset.users["user_id"].gather(frame["user"]).cast(pl.String).alias("user_id"),
            dataset.items["item_id"].gather(frame["target"]).cast(pl.String).alias("target_id"),
        )
        .sort("as_of", "user")
        .select(
            pl.concat_str("user_id", pl.lit("@"), "as_of").alias("example"),
            pl.col("user").cast(pl.UInt32),
            "as_of",
            pl.col("target").cast(pl.UInt32),
            pl.lit(period).alias("period"),
            "user_id",
            "target_id",
        )
    )


def next_sets(dataset: Dataset, examples: pl.DataFrame, ends: Sequence[int], count: int) -> pl.Series:
    """The items that each example's user takes next: its target, then items new to the user, then known ones, each kind in order of time.

    Args:
        dataset: the log.
        examples: ``user``, ``as_of``, ``target``.
        ends: the time before which each example's interactions are looked at: the end of its period, since a later period is judged by what
            this one taught.
        count: most items of a set; users who took fewer have smaller sets.

    Returns:
        ``targets``, a list of different dense item ids for each example, its target first.
    """
    history, sets = dataset.history, []
    for (user, as_of, target), end in zip(examples.select("user", "as_of", "target").iter_rows(), ends, strict=True):
        own = slice(int(history.offsets[user]), int(history.offsets[user + 1]))
        items, times = np.asarray(history.items[own]), np.asarray(history.times[own])
        before = set(items[times < as_of].tolist())
        coming = list(dict.fromkeys(items[(times >= as_of) & (times < end)].tolist()))
        ordered = [target, *(i for i in coming if i not in before), *(i for i in coming if i in before)]
        sets.append(list(dict.fromkeys(ordered))[:count])
    return pl.Series("targets", sets, dtype=pl.List(pl.UInt32))


def _keys(seed: int, *columns: NDArray[np.int64]) -> NDArray[np.uint64]:
    """A pseudo-random number per row from the seed and the row's own values alone (the finaliser of SplitMix64, chained)."""
    state = np.full(len(columns[0]), np.random.default_rng([seed, 1]).integers(2**63), np.uint64)
    for column in columns:
        state = state + column.astype(np.uint64) * np.uint64(0x9E3779B97F4A7C15) + np.uint64(0x9E3779B97F4A7C15)
        state = (state ^ (state >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        state = (state ^ (state >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        state = state ^ (state >> np.uint64(31))
    return state
