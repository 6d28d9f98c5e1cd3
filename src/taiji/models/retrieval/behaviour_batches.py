"""Training batches of histories with behaviours (view, cart, buy, …), from which an encoder learns to predict masked
items."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np
import polars as pl
from numpy.typing import NDArray

from taiji.core.errors import ConfigError, InputError
from taiji.data.dataset import Dataset
from taiji.data.history import History, compressed, rows_and_places

Array = NDArray[Any]
BUCKET = 16
"""Number of batches whose histories are sorted by length together, which keeps padding low."""


class MaskedBatch(NamedTuple):
    """Histories, newest first, with some items masked.

    Attributes:
        items: (B, L) items, numbered from 1 to N; 0 is padding, N + 1 is the mask.
        behaviours: (B, L) behaviours, numbered from 1; 0 is padding.
        places: (M,) positions of the masked items in the flattened ``items`` (B · L,).
        targets: (M,) the masked items, numbered from 0.
        hidden: (B, L) bool, True at randomly drawn positions where the training of the encoder masks the behaviour.
    """

    items: Array
    behaviours: Array
    places: Array
    targets: Array
    hidden: Array


def behaviour_column(dataset: Dataset) -> str:
    """Return the name of the event column that contains the behaviour.

    Raises:
        InputError: the log has no behaviour column.
    """
    column = dataset.event_columns.behaviour
    if column is None:
        raise InputError(
            "The log has no behaviour column.",
            where=f"dataset {dataset.name}",
            expected="events with a behaviour (view, cart, buy, …)",
            found=f"further columns {', '.join(dataset.event_columns.names) or 'none'}",
            fix="name the column in the mapping (events.behaviour)",
        )
    return column


def names_of(dataset: Dataset, rows: pl.DataFrame, target: str) -> list[str]:
    """Return the sorted names of the behaviours of all interactions (rows with a click).

    Raises:
        InputError: the log has no behaviour column.
        ConfigError: the target is not among the names.
    """
    clicks = rows.filter(pl.col("click") == 1)
    names = sorted(clicks[behaviour_column(dataset)].drop_nulls().cast(pl.String).unique().to_list())
    if target not in names:
        raise ConfigError(
            "The target behaviour does not occur in this log.",
            where="retriever, target",
            expected=f"one of the log's behaviours: {', '.join(names) or '(none)'}",
            found=target,
        )
    return names


def behaviours_of(events: pl.DataFrame, column: str, names: list[str], history: History) -> History:
    """Return the history with behaviours in place of items. Behaviours are numbered from 1 in the order of ``names``;
    len(names) + 1 stands for an unknown behaviour.

    Args:
        events: events in time order, from which ``history`` was made.
        column: column of the behaviour.
        names: names of the known behaviours.
    """
    clicks = events.filter(pl.col("click") == 1)
    numbers = {name: place + 1 for place, name in enumerate(names)}
    column_ = clicks[column].cast(pl.String).replace_strict(numbers, default=len(names) + 1, return_dtype=pl.Int64)
    order, _ = compressed(clicks["user"].to_numpy(), history.n_users)
    return replace(history, items=column_.to_numpy()[order])


class Histories:
    """Training histories without the interactions that are held out for validation.

    Args:
        items, behaviours: (n,) item (from 0) and behaviour (from 1) of each interaction, user by user and oldest first.
        starts, ends: (U,) start and exclusive end of each user's slice.
        length: largest number of interactions per history; the latest are kept.
    """

    def __init__(self, items: Array, behaviours: Array, starts: Array, ends: Array, length: int) -> None:
        self.items, self.behaviours, self.ends = items, behaviours, ends
        self.lengths = np.minimum(ends - starts, length)
        self.users = np.flatnonzero(self.lengths > 1)

    def epoch(
        self, batch: int, masked: float, hidden: float, mask: int, random: np.random.Generator
    ) -> Iterator[MaskedBatch]:
        """Yield batches of at most ``batch`` histories of similar length, in random order. Each history of at least two
        interactions occurs once.

        Args:
            masked: share of the items that are masked; if no item of a history is drawn, its newest item is masked.
            hidden: share of the behaviours that are marked as hidden.
            mask: index that stands for a masked item.
        """
        order = random.permutation(self.users)
        bucket = np.arange(len(order)) // (batch * BUCKET)
        order = order[np.lexsort((self.lengths[order], bucket))]
        for at in random.permutation(np.arange(0, len(order), batch)):
            yield self._batch(order[at : at + batch], masked, hidden, mask, random)

    def _batch(self, users: Array, masked: float, hidden: float, mask: int, random: np.random.Generator) -> MaskedBatch:
        items, behaviours = self.padded(users)
        there = items > 0
        drawn = there & (random.random(items.shape) < masked)
        drawn[:, 0] |= ~drawn.any(axis=1)
        targets = items[drawn] - 1
        items[drawn] = mask
        return MaskedBatch(
            items, behaviours, np.flatnonzero(drawn), targets, there & (random.random(items.shape) < hidden)
        )

    def padded(self, users: Array) -> tuple[Array, Array]:
        """Return the items and behaviours of users (B,), each (B, L), newest first and numbered from 1; 0 is
        padding."""
        lengths = self.lengths[users]
        row, place = rows_and_places(lengths)
        source = self.ends[users][row] - 1 - place
        out = np.zeros((2, len(users), int(lengths.max(initial=1))), np.int64)
        out[0, row, place], out[1, row, place] = self.items[source] + 1, self.behaviours[source]
        return out[0], out[1]


def held_out(
    history: History, behaviours: Array, target: int, most: int, random: np.random.Generator
) -> tuple[Array, Array]:
    """Choose at most ``most`` random users whose last interaction with the target behaviour is held out. Each chosen
    user has at least one interaction before it.

    Returns:
        The chosen users (V,), and the exclusive end (U,) of the trainable part of each user's slice: the position of
        the held-out interaction for chosen users, and the end of the slice for all others.
    """
    places = np.flatnonzero(behaviours == target)
    owner = np.searchsorted(history.offsets, places, side="right") - 1
    last = np.full(history.n_users, -1)
    np.maximum.at(last, owner, places)
    users = np.flatnonzero(last > history.offsets[:-1])
    if len(users) > most:
        users = np.sort(random.choice(users, most, replace=False))
    ends = history.offsets[1:].copy()
    ends[users] = last[users]
    return users, ends
