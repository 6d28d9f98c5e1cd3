"""Schema of the three tables that a source provides, and their validation.

Messages count the data rows from 1; the header of a CSV is not counted.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import polars as pl

from taiji.core.errors import ConfigError, InputError
from taiji.data.event_columns import FIXED, NO_COLUMNS, EventColumns, rules
from taiji.data.reading_report import ReadingReport
from taiji.data.settings import DOMAIN

LEVELS = ("category_l1", "category_l2", "category_l3")
"""Category columns that validated items always have. Items may have further category columns (``category_l4``, …)."""
LEVEL = re.compile(r"^category_l([1-9]\d*)$")
TIME = pl.Datetime("us")
SHOWN = 5
"""Largest number of invalid rows in a message."""

REQUIRED = {
    "items": ("item_id", "title"),
    "users": ("user_id",),
    "events": ("user_id", "item_id", "timestamp", "click"),
}
IDS = {"items": "item_id", "users": "user_id"}
PLACES = {"items": "item", "users": "user"}
"""Column of row numbers that a dataset adds to a table, by the name of the table."""
NUMBERS = {"items": ("price",), "users": (), "events": ("price",)}


@dataclass(frozen=True)
class Tables:
    """Items, users and events of a source, with the ids of the source.

    Attributes:
        items: ``item_id`` (integers or text), ``title`` (text) and optionally ``category_l1``, ``category_l2``, …
            (text, from the coarsest to the finest) and ``price``; further columns (such as a description) are kept.
        users: ``user_id`` (integers or text) and any profile columns. A categorical column counts as text.
        events: one row per exposure or action: ``user_id``, ``item_id``, ``timestamp`` and ``click`` (0/1), and
            optionally ``exposed`` (default true), ``conversion`` (0/1/null), ``matured_at`` (time at which
            ``conversion`` and other delayed labels become known; default the time of the event) and ``price``. A row
            with ``exposed`` false and ``click`` 1 is an action without an exposure: it is part of the history, but
            rankers are not trained on it. Further columns are described by ``event_columns``.
        name: name of the dataset.
        domain: domain of the items (``shop``, ``films``, …): the name of a folder of prompt templates, which determines
            the wording of prompts.
        notes: notes on how the tables were made, which the report shows.
        event_columns: roles of the further columns of ``events``; columns without a role are dropped.
        levels: category columns that the source provides, even if they are empty; None takes the category columns of
            ``items``.
        reading: report on how the files of the source were read, or None.
        checked: parts that :func:`validate` has validated. If one of them has been replaced since, the tables are
            validated again.
    """

    items: pl.DataFrame
    users: pl.DataFrame
    events: pl.DataFrame
    name: str = "data"
    domain: str = "shop"
    notes: tuple[str, ...] = ()
    event_columns: EventColumns = NO_COLUMNS
    levels: tuple[str, ...] | None = None
    reading: ReadingReport | None = None
    checked: tuple[object, ...] = field(default=(), repr=False, compare=False)

    @property
    def parts(self) -> tuple[object, ...]:
        """Parts of the tables that the validation depends on."""
        return self.items, self.users, self.events, self.event_columns, self.levels


def validate(tables: Tables, files: Mapping[str, str] | None = None) -> Tables:
    """Validate tables and convert them to a normal form: missing optional columns are added, event columns without a
    role are dropped, and times become naive UTC times in microseconds.

    Args:
        tables: tables as frames of polars (eager or lazy) or pandas.
        files: file from which each table was read, by table name, for messages.

    Raises:
        InputError: the tables are invalid. For example, a column is missing or has the wrong type, a table is empty,
            ids are null or repeated, an id in the events is missing from its table, a label is neither 0 nor 1, a
            conversion has no click, ``matured_at`` is before ``timestamp``, or a column contains a value that its role
            does not allow. The message names the table, the file, the column and the rows.
        ConfigError: the name of the domain or the roles of the columns are invalid.
    """
    files = files or {}
    if not re.fullmatch(DOMAIN, str(tables.domain)):
        raise ConfigError(
            "The name of a domain is invalid.",
            where=f"tables of {tables.name}",
            expected="letters, digits, - and _, such as shop, films or books",
            found=repr(tables.domain),
        )
    tables.event_columns.check(f"event columns of {tables.name}")
    if tables.checked and all(part is seen for part, seen in zip(tables.parts, tables.checked)):
        return tables
    given = {name: getattr(tables, name) for name in REQUIRED}
    frames = {name: f if isinstance(f, pl.DataFrame) else _frame(f, name) for name, f in given.items()}
    deep = [name for name in frames["items"].columns if name not in LEVELS]
    levels = level_names(frames["items"].columns if tables.levels is None else (*tables.levels, *deep))
    for name, frame in frames.items():
        check = _Check(name, files.get(name))
        check.columns(frame)
        frames[name] = check.types(frame, tables.event_columns)
    for name, column in IDS.items():
        _Check(name, files.get(name)).free(frames[name], PLACES[name])
        _Check(name, files.get(name)).unique(frames[name], column)
        _Check("events", files.get("events")).known(frames["events"], frames[name], column, name)
    _Check("events", files.get("events")).labels(frames["events"])
    items, users, events = (frames[name] for name in ("items", "users", "events"))
    made = replace(tables, items=items, users=users, events=events, notes=tuple(tables.notes), levels=levels)
    return replace(made, checked=made.parts)


def row_list(rows: pl.Series | list[int], total: int | None = None) -> str:
    """Format zero-based row positions as text, counted from 1: ``rows 3, 7 and 12 more``.

    If ``rows`` are only the first ones, ``total`` is the number of all rows.
    """
    numbers = [int(row) + 1 for row in rows[:SHOWN]]
    more = (len(rows) if total is None else total) - len(numbers)
    return (
        ("row " if len(numbers) == 1 and not more else "rows ")
        + ", ".join(map(str, numbers))
        + (f" and {more:,} more" if more else "")
    )


def positions(mask: pl.Series) -> pl.Series:
    """Return the positions of the rows in which a mask is true; null counts as false."""
    return mask.fill_null(False).arg_true()


def level_names(columns: Iterable[str]) -> tuple[str, ...]:
    """Return all names ``category_l1``, ``category_l2``, … up to the finest category column among ``columns``."""
    found = [int(match[1]) for name in columns if (match := LEVEL.match(name))]
    return tuple(f"category_l{number + 1}" for number in range(max(found, default=0)))


def _frame(value: Any, name: str) -> pl.DataFrame:
    if isinstance(value, pl.LazyFrame):
        return value.collect()
    if type(value).__module__.split(".")[0] == "pandas":
        return pl.from_pandas(value)
    raise InputError(
        "A table is not a data frame.",
        where=f"table {name}",
        expected="a polars or pandas data frame",
        found=type(value).__name__,
    )


@dataclass(frozen=True)
class _Check:
    """Checks of one table, with messages that name the table and its file."""

    table: str
    file: str | None

    def where(self, column: str | None = None, rows: pl.Series | None = None) -> str:
        parts = [f"table {self.table}" + (f" ({self.file})" if self.file else "")]
        if column is not None:
            parts.append(f"column {column}")
        if rows is not None:
            parts.append(row_list(rows))
        return ", ".join(parts)

    def columns(self, frame: pl.DataFrame) -> None:
        for column in REQUIRED[self.table]:
            if column not in frame.columns:
                raise InputError(
                    "A column is missing.",
                    where=self.where(column),
                    expected=f"columns {', '.join(REQUIRED[self.table])}",
                    found=f"columns {', '.join(frame.columns) or '(none)'}",
                    fix=f"add the column, or assign {column!r} to another column in the mapping",
                )
        if frame.is_empty():
            raise InputError(
                "A table is empty.",
                where=self.where(),
                expected="at least one row",
                found="0 rows",
                fix="check the file, and any filter that was applied to it",
            )

    def types(self, frame: pl.DataFrame, further: EventColumns) -> pl.DataFrame:
        changes: list[pl.Expr] = []
        for column in ("user_id", "item_id"):
            if column in REQUIRED[self.table]:
                self._expect(
                    frame,
                    column,
                    frame.schema[column].is_integer() or frame.schema[column] in (pl.String, pl.Categorical),
                    "integers or text",
                )
                self._no_nulls(frame, column)
                if frame.schema[column] == pl.Categorical:
                    changes.append(pl.col(column).cast(pl.String))
        texts = ("title", *level_names((*frame.columns, *LEVELS))) if self.table == "items" else ()
        for column in texts:
            if column not in frame.columns:
                changes.append(pl.lit(None, pl.String).alias(column))
            else:
                self._expect(frame, column, frame.schema[column] in (pl.String, pl.Categorical, pl.Null), "text")
                changes.append(pl.col(column).cast(pl.String))
        if self.table == "items":
            self._no_nulls(frame, "title")
        for column in NUMBERS[self.table]:
            if column not in frame.columns:
                changes.append(pl.lit(None, pl.Float64).alias(column))
            else:
                self._expect(
                    frame, column, frame.schema[column].is_numeric() or frame.schema[column] == pl.Null, "numbers"
                )
                self._finite(frame, column)
                changes.append(pl.col(column).cast(pl.Float64).fill_nan(None))
        if self.table == "events":
            changes += [*self._event_types(frame), *self._further(frame, further)]
        frame = frame.with_columns(changes)
        return frame.select(*FIXED, *further.names) if self.table == "events" else frame

    def _further(self, frame: pl.DataFrame, columns: EventColumns) -> list[pl.Expr]:
        """Check the columns that have a role, and return the expressions that convert them."""
        changes = []
        for column, rule in rules(columns).items():
            if column not in frame.columns:
                raise InputError(
                    "A column is missing.",
                    where=self.where(column),
                    expected=f"the declared columns {', '.join(columns.names)}",
                    found=f"columns {', '.join(frame.columns)}",
                    fix="add the column, or remove its declaration",
                )
            kind = frame.schema[column]
            self._expect(frame, column, rule.accepts(kind), rule.expected, "convert the column, or declare another one")
            stored = pl.col(column).fill_nan(None) if kind.is_float() else pl.col(column)
            if rule.kinds == "values" and kind.is_float():
                self._finite(frame, column)
            if rule.kinds == "numbers":
                numbers = frame.select(stored.cast(pl.Float64).alias("value"))
                wrong = positions(numbers.select(~rule.valid & pl.col("value").is_not_null()).to_series())
                if len(wrong):
                    raise InputError(
                        "A value is invalid for the role of its column.",
                        where=self.where(column, wrong),
                        expected=rule.expected,
                        found=", ".join(str(value) for value in frame[column].gather(wrong[:SHOWN]).to_list()),
                        fix=rule.fix,
                    )
            named = kind == pl.Categorical or isinstance(kind, pl.Enum)
            dtype = pl.String if rule.dtype is None and named else rule.dtype
            changes.append(stored if dtype is None else stored.cast(dtype))
        return changes

    def _event_types(self, frame: pl.DataFrame) -> list[pl.Expr]:
        self._no_nulls(frame, "timestamp")
        changes = []
        for column in ("timestamp", "matured_at"):
            if column not in frame.columns:
                changes.append(self._time(frame, "timestamp").alias(column))
                continue
            changes.append(
                self._time(frame, column).alias(column)
                if column == "timestamp"
                else pl.coalesce(self._time(frame, column), self._time(frame, "timestamp")).alias(column)
            )
        for column, default in (("exposed", pl.lit(True)), ("click", None), ("conversion", pl.lit(None, pl.Int8))):
            if column not in frame.columns:
                assert default is not None
                changes.append(default.alias(column))
                continue
            kind = frame.schema[column]
            self._expect(frame, column, kind.is_integer() or kind in (pl.Boolean, pl.Null), "0 or 1 (or booleans)")
            if column != "conversion":
                self._no_nulls(frame, column)
            if kind.is_integer():
                wrong = positions(~frame[column].is_in([0, 1]))
                if len(wrong):
                    raise InputError(
                        "A label is neither 0 nor 1.",
                        where=self.where(column, wrong),
                        expected="0 or 1",
                        found=str(frame[column][int(wrong[0])]),
                    )
            changes.append(pl.col(column).cast(pl.Boolean if column == "exposed" else pl.Int8))
        return changes

    def _time(self, frame: pl.DataFrame, column: str) -> pl.Expr:
        kind = frame.schema[column]
        self._expect(
            frame,
            column,
            isinstance(kind, pl.Datetime) or kind == pl.Date,
            "timestamps",
            fix="convert the column, or declare its unit (s, ms, us, ns) in the mapping",
        )
        self._in_calendar(frame, column)
        expression = pl.col(column)
        if isinstance(kind, pl.Datetime) and kind.time_zone:
            expression = expression.dt.convert_time_zone("UTC").dt.replace_time_zone(None)
        return expression.cast(TIME)

    def _in_calendar(self, frame: pl.DataFrame, column: str) -> None:
        """Check that times are in the years 1 to 9999. Other years are the result of a wrong unit."""
        years = frame[column].cast(pl.Datetime("us")).dt.year()
        rows = positions((years < 1) | (years > 9999))
        if len(rows):
            micros = frame[column].cast(pl.Datetime("us")).dt.epoch("us").gather(rows[:SHOWN]).to_list()
            raise InputError(
                "A timestamp is out of range.",
                where=self.where(column, rows),
                expected="timestamps in the years 1 to 9999, all in the same unit",
                found=", ".join(f"{value / 1e6:.0f} seconds since 1970" for value in micros),
                fix="convert these rows if their unit (s, ms, us, ns) differs from that of the other rows; otherwise correct the unit in the mapping",
            )

    def _expect(self, frame: pl.DataFrame, column: str, holds: bool, expected: str, fix: str | None = None) -> None:
        if not holds:
            first = frame[column].drop_nulls().head(1).to_list()
            found = f"{frame.schema[column]}" + (f", for example {first[0]!r}" if first else "")
            raise InputError(
                "A column has the wrong type.",
                where=self.where(column),
                expected=expected,
                found=found,
                fix=fix or "convert the column, or choose another one in the mapping",
            )

    def _no_nulls(self, frame: pl.DataFrame, column: str) -> None:
        rows = positions(frame[column].is_null())
        if len(rows):
            raise InputError(
                "A value is missing.",
                where=self.where(column, rows),
                expected="a value in every row",
                found=f"{len(rows):,} nulls",
                fix="fill in the values, or drop the rows (`unusable: drop` in a mapping drops and counts them)",
            )

    def _finite(self, frame: pl.DataFrame, column: str) -> None:
        rows = positions(frame[column].cast(pl.Float64).is_infinite())
        if len(rows):
            raise InputError(
                "A number is infinite.",
                where=self.where(column, rows),
                expected="finite numbers, or empty cells",
                found=f"{len(rows):,} infinite values",
                fix="leave these values empty, or drop the rows",
            )

    def free(self, frame: pl.DataFrame, column: str) -> None:
        """Raise an error if a table has a column with the name of its row numbers."""
        if column in frame.columns:
            raise InputError(
                "A column has a name that is reserved for the row numbers.",
                where=self.where(column),
                expected=f"no column named {column}",
                found=column,
                fix="rename the column",
            )

    def unique(self, frame: pl.DataFrame, column: str) -> None:
        rows = positions(~frame[column].is_first_distinct())
        if len(rows):
            shown = ", ".join(repr(value) for value in frame[column].gather(rows[:SHOWN]).to_list())
            raise InputError(
                f"Duplicate {self.table}.",
                where=self.where(column, rows),
                expected="unique ids",
                found=f"repeated ids: {shown}",
                fix="keep one row per id",
            )

    def known(self, events: pl.DataFrame, table: pl.DataFrame, column: str, name: str) -> None:
        ids, known = events[column], table[column]
        if ids.dtype != known.dtype:
            if not (ids.dtype.is_integer() and known.dtype.is_integer()):
                raise InputError(
                    "Ids have different types.",
                    where=self.where(column),
                    expected=f"{known.dtype}, as in the table {name}",
                    found=f"{ids.dtype}",
                    fix="store the ids with the same type in both tables",
                )
            known = known.cast(pl.Int64)
            ids = ids.cast(pl.Int64)
        rows = positions(~ids.is_in(known.implode()))
        if len(rows):
            shown = ", ".join(
                repr(value) for value in ids.gather(rows).unique(maintain_order=True).head(SHOWN).to_list()
            )
            raise InputError(
                "Events contain an unknown id.",
                where=self.where(column, rows),
                expected=f"only ids of the table {name} ({len(known):,} ids)",
                found=shown,
                fix=f"add these ids to {name}, or drop the events",
            )

    def labels(self, events: pl.DataFrame) -> None:
        rows = positions((events["conversion"] == 1) & (events["click"] == 0))
        if len(rows):
            raise InputError(
                "A conversion has no click.",
                where=self.where("conversion", rows),
                expected="conversion 1 only if click is 1 (CTCVR = CTR x CVR)",
                found=f"{len(rows):,} such rows",
                fix="treat a conversion as a click; in a mapping, for example, with `click: clicked or purchased`",
            )
        rows = positions(events["matured_at"] < events["timestamp"])
        if len(rows):
            first = events.row(int(rows[0]), named=True)
            raise InputError(
                "A label is known before its event has happened.",
                where=self.where("matured_at", rows),
                expected="matured_at at or after timestamp",
                found=f"{first['matured_at']} before {first['timestamp']}",
                fix="correct the times; leave matured_at empty for labels that are known immediately",
            )


def dense(ids: pl.Series, known: pl.Series) -> pl.Series:
    """Return the position of each id in ``known``, which contains every id exactly once."""
    lookup = pl.DataFrame({"id": known, "dense": pl.arange(len(known), dtype=pl.UInt32, eager=True)})
    ids = ids.cast(known.dtype) if ids.dtype != known.dtype else ids
    return ids.to_frame("id").join(lookup, on="id", how="left", maintain_order="left")["dense"]
