"""Facts about a column of an unfamiliar file: what its values are, how many differ, and whether they can be times."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Any

import polars as pl

from taiji.data.discovery.words import meanings

FEW = 24
"""Up to this many different values are listed."""
YEARS = (788_918_400, 2_051_222_400)
"""Seconds since the epoch of 1995 and 2035: what lies between may be a time."""
UNITS = {"s": 1, "ms": 10**3, "us": 10**6, "ns": 10**9}
TRUTH = frozenset({"true", "false", "yes", "no"})
DAYS = (
    "%d.%m.%Y",
    "%d/%m/%Y",
    "%m/%d/%Y",
    "%d-%m-%Y",
    "%m-%d-%Y",
    "%Y/%m/%d",
    "%Y.%m.%d",
    "%Y年%m月%d日",
    "%Y%m%d",
    "%d.%m.%y",
    "%d/%m/%y",
    "%m/%d/%y",
    "%d %b %Y",
    "%b %d, %Y",
)
CLOCKS = ("", " %H:%M", " %H:%M:%S", " %H:%M:%S%.f", "T%H:%M:%S", " %H时%M分", " %I:%M %p", " %I:%M:%S %p")
ISO = re.compile(r"^\d{4}-\d{2}-\d{2}([ T]\d{2}:\d{2}(:\d{2}([.,]\d+)?)?)?\s*(Z|[+-]\d{2}:?\d{2})?$")
NUMBER = re.compile(r"^[+-]?\d*\.?\d+([eE][+-]?\d+)?$")
COMMA = re.compile(r"^[+-]?(\d{1,3}(\.\d{3})+|\d+),\d+$")


@dataclass(frozen=True)
class Column:
    """One column's facts, from the rows that were read.

    Attributes:
        kind: ``integer``, ``number``, ``text``, ``flag`` (0/1, booleans, true/false, yes/no), ``time``, ``list`` or ``other``.
        rows, present, distinct: rows read, values that are not empty, different values.
        low, high: of numbers.
        characters: mean length of texts; ``spaces``: share of values with a space.
        values: all different values as text, when there are few.
        examples: the first few different values as text.
        units: how an integer column could be a time.
        formats: how a text column could be a time; an empty text is ISO 8601. Several mean that the values do not tell.
        comma: numbers are written with a decimal comma.
    """

    name: str
    kind: str
    rows: int
    present: int
    distinct: int
    low: float | None = None
    high: float | None = None
    characters: float = 0.0
    spaces: float = 0.0
    values: tuple[str, ...] = ()
    examples: tuple[str, ...] = ()
    units: tuple[str, ...] = ()
    formats: tuple[str, ...] = ()
    comma: bool = False
    means: frozenset[str] = field(default_factory=frozenset)

    @property
    def unique(self) -> float:
        """Share of the values that differ: 1 for a key."""
        return self.distinct / self.present if self.present else 0.0

    @property
    def key(self) -> bool:
        """True if it can be the key of a table: nearly every row has a value of its own."""
        return (
            self.kind in ("integer", "text")
            and self.present >= 0.98 * self.rows
            and self.unique >= 0.97
            and self.rows > 1
        )

    @property
    def nearly_key(self) -> bool:
        """True if it can be the key of a table in which some ids occur again, or are missing."""
        return self.identifier and self.present >= 0.9 * self.rows and self.unique >= 0.75 and self.rows > 1

    @property
    def identifier(self) -> bool:
        """True if its values can be ids."""
        return self.kind in ("integer", "text") and self.distinct > 1 and self.spaces < 0.5

    def describe(self) -> str:
        """Kind, counts and a few values, for people."""
        extent = (
            f"{self.low:g} to {self.high:g}, "
            if self.low is not None and self.high is not None and self.kind in ("integer", "number")
            else ""
        )
        empty = f", {self.rows - self.present:,} empty" if self.present < self.rows else ""
        return f"{self.kind}, {extent}{self.distinct:,} different in {self.present:,}{empty}; e.g. {', '.join(self.examples[:3])}"


def facts(values: pl.Series) -> Column:
    """Look at a column's values.

    Args:
        values: of a file, as it was read (a CSV's as text).
    """
    name, rows = values.name, len(values)
    basic: dict[str, Any] = {"name": name, "rows": rows, "means": meanings(name)}
    if values.dtype.is_nested():
        return Column(
            kind="list" if isinstance(values.dtype, pl.List) else "other",
            present=rows - values.null_count(),
            distinct=0,
            **basic,
        )
    if values.dtype == pl.Categorical or isinstance(values.dtype, pl.Enum):
        values = values.cast(pl.String)
    if values.dtype == pl.String:
        values = values.str.strip_chars().replace({"": None})
    values = values.drop_nulls()
    different = values.unique(maintain_order=True)
    shown = tuple(str(value) for value in different.head(5).to_list())
    basic |= {"present": len(values), "distinct": len(different), "examples": shown}
    if len(different) <= FEW:
        basic["values"] = tuple(sorted(str(value) for value in different.to_list()))
    if values.dtype == pl.Boolean:
        return Column(kind="flag", **basic)
    if values.dtype.is_temporal():
        return Column(kind="time" if values.dtype in (pl.Datetime, pl.Date) else "other", formats=("",), **basic)
    if values.dtype.is_numeric():
        return _number(values, basic)
    if values.dtype != pl.String:
        return Column(kind="other", **basic)
    return _text(values, different, basic)


def _number(values: pl.Series, basic: dict[str, Any], comma: bool = False) -> Column:
    whole = values.dtype.is_integer() or (
        not comma and bool((values.cast(pl.Float64) == values.cast(pl.Float64).floor()).all()) and len(values) > 0
    )
    low, high = (float(values.min()), float(values.max())) if len(values) else (None, None)  # type: ignore[arg-type]
    limits: dict[str, Any] = {"low": low, "high": high, "comma": comma}
    if whole and low is not None and high is not None and {low, high} <= {0.0, 1.0}:
        return Column(kind="flag", **limits, **basic)
    units = tuple(
        unit
        for unit, factor in UNITS.items()
        if whole and low is not None and high is not None and low >= YEARS[0] * factor and high <= YEARS[1] * factor
    )
    formats = (
        ("%Y%m%d",)
        if whole
        and low is not None
        and high is not None
        and low >= 19950101
        and high <= 20351231
        and _parses(values.cast(pl.Int64).cast(pl.String), "%Y%m%d")
        else ()
    )
    return Column(kind="integer" if whole else "number", units=units, formats=formats, **limits, **basic)


def _text(values: pl.Series, different: pl.Series, basic: dict[str, Any]) -> Column:
    sample = different.head(2000)
    texts = sample.to_list()
    folded = {text.casefold() for text in texts}
    if folded and folded <= TRUTH:
        return Column(kind="flag", **basic)
    padded = any(len(text) > 1 and text[0] == "0" and text.isdigit() for text in texts)  # 00123 is an id, not a number
    if texts and not padded and all(NUMBER.match(text) for text in texts):
        numbers = values.cast(pl.Int64, strict=False)
        numbers = numbers if not numbers.null_count() else values.cast(pl.Float64, strict=False)
        if not numbers.null_count():
            return _number(numbers, basic)
    if (
        texts
        and any(COMMA.match(text) for text in texts)
        and all(COMMA.match(text) or NUMBER.match(text) for text in texts)
    ):
        numbers = (
            values.str.replace_all(".", "", literal=True)
            .str.replace(",", ".", literal=True)
            .cast(pl.Float64, strict=False)
        )
        if not numbers.null_count():
            return _number(numbers, basic, comma=True)
    formats = _formats(sample)
    if formats:
        return Column(kind="time", formats=formats, **basic)
    lengths = sample.str.len_chars().mean()
    spaces = sample.str.contains(" ", literal=True).mean()
    return Column(kind="text", characters=float(lengths or 0), spaces=float(spaces or 0), **basic)  # type: ignore[arg-type]


def _formats(sample: pl.Series) -> tuple[str, ...]:
    """Every way in which all these texts can be dates."""
    texts = sample.to_list()
    if not texts or not any(char.isdigit() for char in texts[0]):
        return ()
    if all(ISO.match(text) for text in texts):
        return ("",)
    first = sample.head(1)
    found = (
        next((day + clock for clock in CLOCKS if _parses(first, day + clock) and _parses(sample, day + clock)), None)
        for day in DAYS
    )
    return tuple(form for form in found if form)


def _parses(texts: pl.Series, form: str) -> bool:
    try:
        times = texts.str.to_datetime(form, strict=False, time_unit="us")
    except pl.exceptions.PolarsError:
        return False
    if times.null_count() or not len(times):
        return False
    years = times.dt.year()
    return int(years.min()) >= 1970 and int(years.max()) <= 2100  # type: ignore[arg-type]
