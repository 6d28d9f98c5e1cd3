"""Rows that fields turn into the inputs of a model: a table, or arrays that are converted to a table only when a field
needs one."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal, Self

import numpy as np
import polars as pl
from numpy.typing import NDArray

from taiji.core.errors import InputError
from taiji.data.dataset import Dataset
from taiji.data.statistics import PastStatistics, statistics_of

Array = NDArray[Any]
Side = Literal["user", "item", "context", "pair"]
NEEDED = ("user", "item", "time")
"""Columns that every row must have."""


@dataclass(frozen=True, eq=False)
class Rows:
    """Rows with a user, an item and a time each, and possibly further columns.

    Attributes:
        dataset: dataset to which the ids refer.
        frame: ``user``, ``item`` (dense ids), ``time`` (microseconds) and further columns.
        past: source of point-in-time statistics; None uses the log of the dataset.
        known: statistics of these rows by name, if they have already been computed.

    Raises:
        InputError: ``user``, ``item`` or ``time`` is missing.
    """

    dataset: Dataset
    frame: pl.DataFrame
    past: PastStatistics | None = None
    known: Mapping[str, Array] | None = None

    def __post_init__(self) -> None:
        if not set(NEEDED) <= set(self.frame.columns):
            raise InputError(
                "Columns are missing.",
                where="exposures",
                expected=", ".join(NEEDED),
                found=", ".join(self.frame.columns),
            )

    def __len__(self) -> int:
        return len(self.frame)

    def _integers(self, name: str) -> Array:
        return self.frame[name].to_numpy().astype(np.int64)

    @cached_property
    def user(self) -> Array:
        """Dense user ids, (N,) int64."""
        return self._integers("user")

    @cached_property
    def item(self) -> Array:
        """Dense item ids, (N,) int64."""
        return self._integers("item")

    @cached_property
    def time(self) -> Array:
        """Times in microseconds since the epoch, (N,) int64."""
        return self._integers("time")

    @property
    def columns(self) -> Sequence[str]:
        """Names of the columns."""
        return self.frame.columns

    def lists(self, name: str) -> Sequence[Sequence[float] | None] | None:
        """Return a column as Python lists if it was given in this form; None if it has to be read from
        :attr:`frame`."""
        return None

    @cached_property
    def statistics(self) -> Mapping[str, Array]:
        """Point-in-time statistics of the rows by name, (N,) float32 each."""
        if self.known is not None:
            return self.known
        past = statistics_of(self.dataset) if self.past is None else self.past
        return past.at(self.user, self.item, self.time)

    def source(self, side: Side) -> pl.DataFrame:
        """Return the table with the columns of a side: the users, the items, or the rows themselves."""
        if side == "user":
            return self.dataset.users
        return self.dataset.items if side == "item" else self.frame


class RowArrays(Rows):
    """Rows given as arrays. The table is made only when a field reads it, because making the table of one request costs
    as much as scoring the request.

    Args:
        dataset, past, known: as in :class:`Rows`.
        user, item, time: dense ids, and times in microseconds since the epoch, (N,) int64 each.
        further: functions that make the further columns, by name of the column.
        given: those further columns that already exist as arrays, (N,) each, by name. :meth:`lists` returns such a
            column if its elements are Python lists.
    """

    def __new__(cls, *arguments: Any, frame: pl.DataFrame | None = None, **others: Any) -> Self:
        """Return :class:`Rows` if a table is given; :func:`dataclasses.replace` calls the class in this way."""
        return super().__new__(cls) if frame is None else Rows(frame=frame, **others)  # type: ignore[return-value]

    def __init__(
        self,
        dataset: Dataset,
        user: Array,
        item: Array,
        time: Array,
        further: Mapping[str, Callable[[], pl.Series]],
        given: Mapping[str, Array],
        past: PastStatistics | None = None,
        known: Mapping[str, Array] | None = None,
    ) -> None:
        self.__dict__.update(dataset=dataset, past=past, known=known, user=user, item=item, time=time)
        self.__dict__.update(_further=further, _given=given)

    def __len__(self) -> int:
        return len(self.user)

    @cached_property
    def frame(self) -> pl.DataFrame:  # type: ignore[override]
        """Table of the rows."""
        further = {name: make() for name, make in self.__dict__["_further"].items()}
        return pl.DataFrame({"user": self.user, "item": self.item, "time": self.time, **further})

    @property
    def columns(self) -> Sequence[str]:
        """Names of the columns."""
        return [*NEEDED, *self.__dict__["_further"]]

    def lists(self, name: str) -> Sequence[Sequence[float] | None] | None:
        """Return a given column if its elements are Python lists; None for any other column."""
        values = self.__dict__["_given"].get(name)
        if values is None or values.dtype != object:
            return None
        found: list[Sequence[float] | None] = values.tolist()
        return found if all(entry is None or isinstance(entry, (list, tuple)) for entry in found) else None
