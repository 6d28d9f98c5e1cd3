"""Choose prompt examples: triples of user, cutoff and target.

A prompt may use only events strictly before its cutoff.
"""

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
"""Approximate number of interactions to process together. The interactions of a user are never separated."""


def make_examples(dataset: Dataset, split: Split, period: str, settings: ExampleSettings, seed: int) -> pl.DataFrame:
    """Choose the examples of a period.

    The cutoff ``as_of`` is the time of the target's event. If several targets share user and cutoff (one basket), one
    of them is drawn. Choices are made by a pseudo-random key, a hash of seed, user, cutoff and target. The key of an
    example therefore does not depend on other events in the log.

    Args:
        dataset: the log.
        split: split of the log into periods.
        period: one of :data:`taiji.data.splits.PERIODS`.
        settings: kind of target, minimum history and limits.
        seed: random seed for the choice.

    Returns:
        ``example`` (text, unique), ``user`` (u32), ``as_of`` (i64), ``target`` (dense item, u32), ``period``,
        ``user_id`` and ``target_id`` (as text), sorted by (as_of, user).

    Raises:
        InputError: the period has no example.
    """
    parts = [
        example_candidates(dataset, split, period, settings, seed, *users)
        for users in dataset.history.ranges(INTERACTIONS)
    ]
    return choose_examples(dataset, pl.concat(parts), period, settings)


def example_candidates(
    dataset: Dataset, split: Split, period: str, settings: ExampleSettings, seed: int, first: int, last: int
) -> pl.DataFrame:
    """Return the candidates of the users ``[first, last)`` for :func:`make_examples`: ``user, as_of, target, key``.
    The histories of other users are not read."""
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
    """Choose the examples among the candidates of all users; see :func:`make_examples`."""
    if frame.is_empty():
        raise InputError(
            f"The period {period!r} has no example.",
            where=f"data {dataset.name}",
            expected=f"users with at least {settings.min_history} interactions before a target ({settings.target})",
            found="none",
            fix="lower examples.min_history, keep more users (data.users), or increase the share of the period in split.fractions",
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
    """Return the next items of each example's user: the target, then items that are new to the user, then items with
    which the user had interacted before. Both groups of items are in chronological order.

    Args:
        dataset: the log.
        examples: ``user``, ``as_of``, ``target``.
        ends: for each example, the end of its period. Interactions at or after this time are not used, because later
            periods serve for evaluation.
        count: largest number of items in a set; users with fewer next items have smaller sets.

    Returns:
        ``targets``: a list of distinct dense item ids for each example, the target first.
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
    """Return a pseudo-random number per row that depends only on the seed and the values of the row (chained finalisers
    of SplitMix64)."""
    state = np.full(len(columns[0]), np.random.default_rng([seed, 1]).integers(2**63), np.uint64)
    for column in columns:
        state = state + column.astype(np.uint64) * np.uint64(0x9E3779B97F4A7C15) + np.uint64(0x9E3779B97F4A7C15)
        state = (state ^ (state >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        state = (state ^ (state >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        state = state ^ (state >> np.uint64(31))
    return state
