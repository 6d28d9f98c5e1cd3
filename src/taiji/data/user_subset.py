"""Subset of a dataset's users whose interactions are supplied separately, for a service that has newer events than
the log."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from typing import Any, Self

import numpy as np
import polars as pl

from taiji.data.dataset import Dataset
from taiji.data.history import History, Ints

NEW = -1
"""Dense id that marks a user who is missing from the base dataset."""


class UserSubset(Dataset):
    """Dataset of a subset of users, numbered from 0, with the catalogue and the prices of the base dataset.

    The tables of users and events are built on first access, so a request that reads only histories builds neither.

    Args:
        base: the dataset from which the subset is taken.
        numbers: dense id of each user in the base dataset, (U,); :data:`NEW` for a user who is missing from it.
        names: text id of each user.
        history: interactions of these users.
    """

    base: Dataset
    numbers: Ints
    names: Sequence[str]

    def __new__(cls, base: Dataset | None = None, *arguments: Any, **tables: Any) -> Self:
        """Return a dataset in memory if tables are given; :func:`dataclasses.replace` calls the class in this way."""
        return super().__new__(cls) if base is not None else Dataset(**tables)  # type: ignore[return-value]

    def __init__(self, base: Dataset, numbers: Ints, names: Sequence[str], history: History) -> None:
        same = ("items", "name", "domain", "notes", "event_columns", "given_levels", "prices", "levels", "tasks")
        self.__dict__.update({attribute: getattr(base, attribute) for attribute in same}, reading=None)
        self.__dict__.update(base=base, numbers=numbers, names=names, history=history)

    @property
    def n_users(self) -> int:
        """Number of users."""
        return len(self.numbers)

    @cached_property
    def event_schema(self) -> pl.Schema:  # type: ignore[override]
        """Columns of the events and their types."""
        return self.events.schema

    @cached_property
    def users(self) -> pl.DataFrame:  # type: ignore[override]
        """Table of the users, with their profiles from the base dataset; the profiles of new users are null."""
        known = self.numbers != NEW
        profiles = self.base.users[np.where(known, self.numbers, 0).tolist()]
        if not known.all():
            there = pl.Series(known, dtype=pl.Boolean)
            profiles = profiles.with_columns(pl.when(there).then(pl.col(name)) for name in profiles.columns[2:])
        return pl.DataFrame(
            [
                pl.Series("user", range(len(known)), dtype=pl.UInt32),
                pl.Series("user_id", self.names, dtype=pl.String),
                *profiles.get_columns()[2:],
            ]
        )

    @cached_property
    def events(self) -> pl.DataFrame:  # type: ignore[override]
        """Interactions as events, none of which is an exposure. The values of further columns come from the log, and
        are null for interactions that the log does not have."""
        user = np.repeat(np.arange(self.n_users), np.diff(self.history.offsets))
        item, time = self.history.items, self.history.times
        order = np.lexsort((user, time))
        rows = len(user)

        def same(name: str, value: object, kind: pl.DataType | type[pl.DataType]) -> pl.Series:
            return pl.Series(name, [value], dtype=kind).new_from_index(0, rows)

        further = self.event_columns.names
        made = pl.DataFrame(
            [
                pl.Series("event", np.arange(rows, dtype=np.uint32)),
                pl.Series("user", user[order].astype(np.uint32)),
                pl.Series("item", item[order].astype(np.uint32)),
                pl.Series("time", time[order].astype(np.int64)),
                same("exposed", False, pl.Boolean),
                same("click", 1, pl.Int8),
                same("conversion", None, pl.Int8),
                same("matured_at", None, pl.Int64),
                same("price", None, pl.Float64),
            ]
        )
        return self._with_logged(made, further) if further else made

    def _with_logged(self, made: pl.DataFrame, further: Sequence[str]) -> pl.DataFrame:
        """Add the further columns to the events; their values are null for events that the log does not have."""
        keys = ["_number", "item", "time"]
        number = pl.Series("_number", self.numbers, dtype=pl.Int64)
        logged = (
            self.base.scan()
            .filter((pl.col("click") == 1) & pl.col("user").is_in(number.filter(number != NEW).implode()))
            .select(pl.col("user").cast(pl.Int64).alias("_number"), pl.col("item", "time"), *further)
            .unique(keys, keep="first", maintain_order=True)
            .collect()
        )
        numbered = made.with_columns(number[made["user"].cast(pl.Int64)])
        return numbered.join(logged, on=keys, how="left", maintain_order="left").drop("_number")
