"""Fields: how a column of a dataset becomes an input of a model.

A model never names a column. It is handed the arrays of its fields and a description of them, and each field knows its
side: what it says about the user, the item, the request's context, or the pair of user and item. A field of another
package subclasses one of the classes here and overrides one method; see ``docs/extending.md``.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from inspect import signature
from typing import Any, ClassVar, Literal, get_args

import numpy as np
import polars as pl
from numpy.typing import NDArray

from taiji.core.component import as_subclass, find_class
from taiji.core.errors import ConfigError, InputError
from taiji.data.dataset import Dataset
from taiji.data.statistics import STATISTICS, PastStatistics, statistics_of
from taiji.data.vocabulary import Vocabulary, stable_hash

Array = NDArray[Any]
Side = Literal["user", "item", "context", "pair"]
BINS = 10
"""Quantile bins of a numeric column that is read as a category."""
FEW = 64
"""Values up to which a column is hashed value by value: finding the distinct ones takes longer (a request has a few)."""
SIDES = get_args(Side)
IDS = {"user": "user_id", "item": "item_id"}
NEEDED = ("user", "item", "time")
"""Columns of every row."""
OUTCOMES = ("event", "exposed", "click", "conversion", "matured_at")
"""Columns of events that nothing may read of a row to predict that row."""


@dataclass(frozen=True, eq=False)
class Rows:
    """(user, item, time) rows of a dataset, with whatever further columns they came with.

    Attributes:
        dataset: what the ids mean.
        frame: ``user``, ``item`` (dense ids), ``time`` (microseconds) and further columns.
        past: where point-in-time statistics come from, if not from the dataset's own log.
        known: statistics of these rows by name, where they are computed already.

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
        """(N,) int64."""
        return self._integers("user")

    @cached_property
    def item(self) -> Array:
        """(N,) int64."""
        return self._integers("item")

    @cached_property
    def time(self) -> Array:
        """(N,) int64."""
        return self._integers("time")

    @cached_property
    def statistics(self) -> Mapping[str, Array]:
        """Point-in-time statistics of the rows by name, (N,) float32 each."""
        if self.known is not None:
            return self.known
        past = statistics_of(self.dataset) if self.past is None else self.past
        return past.at(self.user, self.item, self.time)

    def source(self, side: Side) -> pl.DataFrame:
        """Return the table that a side's columns stand in: users, items, or the rows themselves."""
        return {"user": self.dataset.users, "item": self.dataset.items}.get(side, self.frame)


class Field:
    """Base of all fields.

    Args:
        name: unique among a model's fields.
        side: what it is about.
    """

    learnt: ClassVar[tuple[str, ...]] = ()
    """Attributes that :meth:`fit` sets and that JSON can hold; saved with the model."""
    must_pay: bool = False
    """A ranker keeps it only where it predicts later rows better with it; for fields of numbers."""

    def __init__(self, name: str, side: Side) -> None:
        if side not in SIDES:
            raise ConfigError(
                "A field has no such side.", where=f"field {name}", expected=" | ".join(SIDES), found=str(side)
            )
        self.name, self.side = name, side
        self.options: dict[str, Any] = {}

    def fit(self, dataset: Dataset, rows: pl.DataFrame, until: int) -> None:
        """Learn vocabulary, edges or shape from what is known before ``until`` (microseconds); ``rows`` are the training rows."""
        return

    def config(self) -> dict[str, Any]:
        """Return what is not a tensor, for JSON."""
        return {name: getattr(self, name) for name in self._all_learnt()}

    def _all_learnt(self) -> list[str]:
        """Return the learnt attributes of the class and of those that it extends, unless it learns nothing."""
        kinds = [kind for kind in type(self).__mro__ if issubclass(kind, Field)]
        return sorted({name for kind in kinds for name in kind.learnt}) if self.learnt else []

    def tensors(self) -> dict[str, Array]:
        """Return what is kept as arrays."""
        return {}

    def restore(self, config: Mapping[str, Any], tensors: Mapping[str, Array]) -> None:
        """Take back what :meth:`config` and :meth:`tensors` returned."""
        for name in self._all_learnt():
            setattr(self, name, config[name])


class CodeField(Field, ABC):
    """A field of rows in a vocabulary: what an embedding is looked up with.

    The vocabulary's row 0 means absent, then come hashed rows, then one row per known value.
    """

    columns: int = 1
    """Codes of one entity."""
    vocabulary: Vocabulary

    @abstractmethod
    def codes(self, dataset: Dataset, source: pl.DataFrame) -> Array:
        """Return the codes of a table's rows, (n, columns) int64; the table is :meth:`Rows.source` of the field's side."""

    def config(self) -> dict[str, Any]:
        """Return what is not a tensor, for JSON."""
        return {**super().config(), "hashed": self.vocabulary.hashed}

    def tensors(self) -> dict[str, Array]:
        """Return the hashes of the known values."""
        return {"known": self.vocabulary.known}

    def restore(self, config: Mapping[str, Any], tensors: Mapping[str, Array]) -> None:
        """Take back what :meth:`config` and :meth:`tensors` returned."""
        super().restore(config, tensors)
        self.vocabulary = Vocabulary(tensors["known"], config["hashed"])


class IdField(CodeField):
    """The id of the user or the item; rare and unseen ids share hashed rows.

    Args:
        side: ``user`` or ``item``.
        min_count: an id seen fewer times before training ends shares a hashed row.
        max_rows: ids with a row of their own; the most frequent ones get them.
        hashed: shared rows.
    """

    def __init__(self, side: Side, min_count: int = 2, max_rows: int = 1_000_000, hashed: int = 1024) -> None:
        super().__init__(IDS[side], side)
        self.common = {"min_count": min_count, "max_rows": max_rows, "hashed": hashed}
        self.options = {"side": side, **self.common}

    def fit(self, dataset: Dataset, rows: pl.DataFrame, until: int) -> None:
        """Count every id in the log before ``until``."""
        table = dataset.users if self.side == "user" else dataset.items
        past = dataset.events.filter(pl.col("time") < until)[self.side].to_numpy()
        counts = np.bincount(past, minlength=len(table))[: len(table)]
        self.vocabulary = Vocabulary.fit(stable_hash(table[self.name].to_list()), counts, **self.common)

    def codes(self, dataset: Dataset, source: pl.DataFrame) -> Array:
        """Return the row of each id, (n, 1) int64."""
        return self.vocabulary.rows_of(stable_hash(source[self.name].to_list()))[:, None]


class CategoryField(CodeField):
    """One or several columns of categories that share a vocabulary; several are told apart as ``column=value``.

    A numeric column with more than fifty values is cut into quantile bins.

    Args:
        column: one column, or several.
        side: whose column it is; of the users' table, the items' table, or the rows (context, pair).
        name: default: the column's.
        hashed: rows that values unseen in training share.
    """

    learnt = ("edges",)

    def __init__(
        self, column: str | Sequence[str], side: Side = "context", name: str | None = None, hashed: int = 64
    ) -> None:
        self.names = (column,) if isinstance(column, str) else tuple(column)
        super().__init__(name or self.names[0], side)
        if hashed < 1:
            raise ConfigError(
                "A vocabulary needs a shared row.", where=f"field {self.name}", expected="hashed ≥ 1", found=str(hashed)
            )
        self.hashed, self.columns = hashed, max(1, len(self.names))
        self.edges: dict[str, list[float]] = {}
        self.options = {"column": list(self.names), "side": side, "name": name, "hashed": hashed}

    def values(self, dataset: Dataset, source: pl.DataFrame) -> pl.DataFrame:
        """Return the table's categories, one column per code; override for categories that are computed.

        A column that the table lacks is missing on every row.
        """
        return source.select(name for name in self.names if name in source.columns)

    def fit(self, dataset: Dataset, rows: pl.DataFrame, until: int) -> None:
        """Learn the values: of the whole table for users and items, of the training rows otherwise."""
        source = Rows(dataset, rows).source(self.side)
        if type(self).values is CategoryField.values:
            _check_columns(self, self.names, source)
        found = self.values(dataset, source)
        self.edges = {name: _edges(found[name]) for name in found.columns if _is_wide(found[name])}
        known = [value for name in found.columns for value in self._keys(found[name].unique()) if value is not None]
        self.vocabulary = Vocabulary(stable_hash(known), hashed=self.hashed)

    def codes(self, dataset: Dataset, source: pl.DataFrame) -> Array:
        """Return the row of each value, (n, columns) int64, 0 where it is missing."""
        found = self.values(dataset, source)
        missing = np.zeros(len(source), dtype=np.int64)
        if type(self).values is CategoryField.values:
            columns = [self._rows(found[name]) if name in found.columns else missing for name in self.names]
        else:
            columns = [self._rows(found[name]) for name in found.columns]
        return np.stack(columns or [missing], axis=1)

    def _rows(self, values: pl.Series) -> Array:
        """Return a column's rows; each distinct value of a long column is hashed once."""
        values = values.fill_nan(None) if values.dtype.is_float() else values
        if values.name in self.edges or len(values) <= FEW:
            return self.vocabulary.rows(self._keys(values))
        distinct = values.unique()
        table = pl.DataFrame({"value": distinct, "code": self.vocabulary.rows(self._keys(distinct))})
        given = values.alias("value").to_frame()
        return given.join(table, on="value", how="left", nulls_equal=True, maintain_order="left")["code"].to_numpy()

    def _keys(self, values: pl.Series) -> list[Any]:
        """Return what the vocabulary hashes, None for a missing value."""
        if values.dtype == pl.Boolean:
            values = values.cast(pl.Int8)
        found: list[Any] = [_plain(value) for value in values] if values.dtype.is_float() else values.to_list()
        if values.name in self.edges:
            numbers = values.cast(pl.Float64).fill_nan(None)
            bins = np.searchsorted(self.edges[values.name], numbers.fill_null(0).to_numpy())
            found = [None if missing else int(b) for missing, b in zip(numbers.is_null(), bins)]
        if self.columns > 1:
            found = [None if value is None else f"{values.name}={value}" for value in found]
        return found


class NumbersField(Field, ABC):
    """A field of one or several numbers per row; a subclass names them in :attr:`labels` and makes them in :meth:`matrix`."""

    @property
    @abstractmethod
    def labels(self) -> tuple[str, ...]:
        """Names of its numbers, unique among a model's; none where the field has nothing to say."""

    @abstractmethod
    def matrix(self, rows: Rows) -> Array:
        """Return the numbers of each row, (N, len(labels)) float32, every one finite."""


class NumberField(NumbersField):
    """A number per row; a missing or non-finite one becomes the median of the training rows.

    Args:
        column: where the number stands, in the table of its side.
        side: whose number it is.
        name: default: the column's.
    """

    learnt: ClassVar[tuple[str, ...]] = ("median",)

    def __init__(self, column: str, side: Side = "context", name: str | None = None) -> None:
        super().__init__(name or column, side)
        self.column, self.median = column, 0.0
        self.options = {"column": column, "side": side, "name": name}

    @property
    def labels(self) -> tuple[str, ...]:
        """The field's own name."""
        return (self.name,)

    def matrix(self, rows: Rows) -> Array:
        """Return :meth:`numbers` as a column, (N, 1) float32."""
        return self.numbers(rows)[:, None]

    def compute(self, rows: Rows) -> Array:
        """Return the number of each row, (N,), NaN where there is none; override for numbers that are computed."""
        source = rows.source(self.side)
        if self.column not in source.columns:
            return np.full(len(rows), np.nan)
        if not (source[self.column].dtype.is_numeric() or source[self.column].dtype == pl.Boolean):
            raise InputError(
                "A number field's column does not hold numbers.",
                where=f"field {self.name}, column {self.column} ({self.side})",
                expected="numbers",
                found=str(source[self.column].dtype),
                fix="read it with a category field",
            )
        values = source[self.column].cast(pl.Float64).fill_null(float("nan")).to_numpy()
        return values[{"user": rows.user, "item": rows.item}[self.side]] if self.side in IDS else values

    def fit(self, dataset: Dataset, rows: pl.DataFrame, until: int) -> None:
        """Learn what stands in for a missing number."""
        if type(self).compute is NumberField.compute:
            _check_columns(self, (self.column,), Rows(dataset, rows).source(self.side))
        values = np.asarray(self.compute(Rows(dataset, rows)), dtype=np.float64)
        known = values[np.isfinite(values)]
        self.median = float(np.median(known)) if len(known) else 0.0

    def numbers(self, rows: Rows) -> Array:
        """Return the number of each row, (N,) float32, every one finite."""
        try:
            values = np.asarray(self.compute(rows), dtype=np.float64)
        except (TypeError, ValueError) as error:
            raise InputError(
                "A number field returned something else than numbers.", where=f"field {self.name}", found=str(error)
            ) from error
        if values.shape != (len(rows),):
            raise InputError(
                "A number field returned another shape.",
                where=f"field {self.name}",
                expected=f"({len(rows)},)",
                found=str(values.shape),
            )
        with np.errstate(over="ignore"):
            stored = values.astype(np.float32)  # a number that float32 cannot hold is none, either
        return np.where(np.isfinite(stored), stored, np.float32(self.median))


class StatisticField(NumberField):
    """One of the point-in-time statistics of :mod:`taiji.data.statistics`."""

    learnt = ()

    def __init__(self, name: str) -> None:
        super().__init__(name, STATISTICS[name][0])
        self.column, self.options = "", {"name": name}

    def fit(self, dataset: Dataset, rows: pl.DataFrame, until: int) -> None:
        """Learn nothing."""

    def numbers(self, rows: Rows) -> Array:
        """Return the statistic, (N,) float32."""
        return rows.statistics[self.name]


def make_field(given: str | Mapping[str, Any], where: str) -> Field:
    """Return the field that a setting describes.

    Args:
        given: ``package.module:Class`` or an entry point of the group ``taiji.fields``, or a mapping with that as ``field``
            and the class' arguments beside it. ``category`` and ``number`` name the classes here. ``must_pay: true`` leaves a field
            of numbers out of a ranker that predicts later rows no better with it.
        where: the setting, for messages.

    Raises:
        ConfigError: nothing has that name, it is not a field, or the arguments do not fit.
    """
    arguments = {"field": given} if isinstance(given, str) else dict(given)
    reference = str(arguments.pop("field", "category"))
    must_pay = arguments.pop("must_pay", False)
    built_in: dict[str, type[Field]] = {"category": CategoryField, "number": NumberField}
    found = built_in.get(reference) or find_class(reference, "taiji.fields", where)
    made = as_subclass(found, Field, "a field", where)
    try:
        result = made(**arguments)
    except TypeError as error:
        raise ConfigError(
            "A field's arguments do not fit.", where=where, expected=f"the arguments of {reference}", found=str(error)
        ) from error
    if must_pay is True and not isinstance(result, NumbersField):
        raise ConfigError(
            "Only a field of numbers can be left out where it does not pay.",
            where=where,
            expected="a subclass of taiji.data.fields.NumbersField",
            found=made.__qualname__,
            fix="take must_pay out",
        )
    if not isinstance(must_pay, bool):
        raise ConfigError("must_pay is yes or no.", where=where, expected="true or false", found=repr(must_pay))
    result.must_pay = must_pay
    return result


@dataclass(frozen=True)
class Saved:
    """A field as JSON: its class, the arguments it was made with, and what it learnt."""

    reference: str
    options: dict[str, Any]
    config: dict[str, Any] = field(default_factory=dict)

    @classmethod
    def of(cls, made: Field) -> Saved:
        """Describe a field."""
        kind = type(made)
        forgotten = [name for name in signature(kind).parameters if name not in made.options]
        if forgotten:
            raise ConfigError(
                "A field does not remember an argument that it was made with: read again, it would be another field.",
                where=f"{kind.__module__}:{kind.__qualname__}",
                expected=f"self.options with {', '.join(signature(kind).parameters)}",
                found=f"self.options without {', '.join(forgotten)}",
                fix="set self.options in __init__, behind super().__init__",
            )
        return cls(f"{kind.__module__}:{kind.__qualname__}", made.options, made.config())

    def make(self) -> Field:
        """Make the field anew, before it is given back what it learnt.

        Raises:
            ConfigError: its class cannot be imported here.
        """
        return make_field({"field": self.reference, **self.options}, "a saved model's fields")


def _check_columns(field: Field, columns: Sequence[str], source: pl.DataFrame) -> None:
    missing = [name for name in columns if name not in source.columns]
    if missing:
        table = {"user": "the users", "item": "the items"}.get(field.side, "the training rows")
        raise ConfigError(
            "A field names a column that is not there.",
            where=f"field {field.name}, {field.side} side",
            expected=f"columns of {table}: {', '.join(source.columns)}",
            found=", ".join(missing),
            fix="correct `column`, or `side`; a column of events must be declared as context in the mapping",
        )


def check_not_an_outcome(field: Field, dataset: Dataset, where: str) -> None:
    """Raise ConfigError where a field of the rows reads a label or what the user did."""
    further = dataset.event_columns
    outcomes = {*OUTCOMES, further.behaviour, *(task.name for task in further.labels)}
    read = (
        {*field.names}
        if isinstance(field, CategoryField)
        else {field.column}
        if isinstance(field, NumberField)
        else set()
    )
    if field.side not in IDS and read & outcomes:
        raise ConfigError(
            "A field reads what it should help to predict.",
            where=f"{where}, field {field.name}",
            expected="what is known at the request: "
            + (", ".join(further.known_at_display) or "context columns of the mapping"),
            found=", ".join(sorted(map(str, read & outcomes))),
        )


def _plain(value: float | None) -> float | int | None:
    """Return a whole number as an integer, as it may be stored next time, and NaN as missing."""
    if value is None or np.isnan(value):
        return None
    return int(value) if np.isfinite(value) and value == int(value) else value


def _is_wide(values: pl.Series) -> bool:
    return values.dtype.is_numeric() and values.cast(pl.Float64).fill_nan(None).drop_nulls().n_unique() > 5 * BINS


def _edges(values: pl.Series) -> list[float]:
    known = values.cast(pl.Float64).drop_nulls().to_numpy()
    known = known[np.isfinite(known)]
    return np.unique(np.quantile(known, np.linspace(0, 1, BINS + 1)[1:-1])).tolist()
