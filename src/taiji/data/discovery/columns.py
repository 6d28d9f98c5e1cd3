"""Describe a column of an unfamiliar file: the kind and number of its values, and whether they can be times."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TypedDict

import polars as pl

from taiji.data.discovery.words import meanings
from taiji.data.schema import positions
from taiji.data.sources.number_cells import PLAIN, NumberForm, as_numbers, broken, number_forms, stripped
from taiji.data.sources.time_cells import Unit, as_times, serial_days, time_forms, units_of
from taiji.data.sources.truth_cells import Truth, read_truth, understood

FEW = 24
"""Largest number of distinct values to list."""
LONG = r"^[+-]?\d{17,}$"
"""Pattern of integers with so many digits that a float may not represent them exactly."""
SHOWN = 5
"""Largest number of broken cells whose positions are stored."""


@dataclass(frozen=True)
class Column:
    """Description of a column, computed from the inspected rows.

    Attributes:
        name: name of the column.
        kind: ``integer``, ``number``, ``text``, ``flag`` (0/1, booleans, or yes and no in many languages), ``time``,
            ``list`` or ``other``.
        rows: number of inspected rows.
        present: number of cells that are not empty.
        distinct: number of distinct values.
        low, high: smallest and largest value; None unless the values are numbers.
        characters: mean number of characters of the texts.
        spaces: share of the texts that contain a space.
        values: all distinct values as text, if there are at most :data:`FEW`.
        examples: the first few distinct values as text.
        units: units in which the numbers could be times.
        formats: formats in which the values can be read as times; an empty string stands for ISO 8601. Several formats
            mean that the values are ambiguous.
        forms: notations in which the values can be read as numbers; several if the values are ambiguous.
        negative: number of values below 0.
        zeros: number of values that are 0.
        broken: number of cells that do not fit the kind of the column.
        broken_at: row (counted from 1) and text of the first few broken cells.
        mostly: description of the readable cells alone, if nearly all cells of a text column are numbers, times, or
            yes and no; otherwise None.
        means: meanings that the name of the column suggests.
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
    units: tuple[Unit, ...] = ()
    formats: tuple[str, ...] = ()
    forms: tuple[NumberForm, ...] = (PLAIN,)
    negative: int = 0
    zeros: int = 0
    broken: int = 0
    broken_at: tuple[tuple[int, str], ...] = ()
    mostly: Column | None = None
    means: frozenset[str] = field(default_factory=frozenset)

    @property
    def form(self) -> NumberForm:
        """Notation of the numbers; the simplest one if the values are ambiguous."""
        return self.forms[0]

    @property
    def understood(self) -> Column:
        """Description of the cells that can be read: ``mostly`` if it is set, otherwise this description."""
        return self.mostly or self

    @property
    def unique(self) -> float:
        """Number of distinct values divided by the number of values: 1 for a key."""
        return self.distinct / self.present if self.present else 0.0

    @property
    def key(self) -> bool:
        """True if the column can be the key of a table: nearly every row has a unique value."""
        return self._can_be_id and self.present >= 0.98 * self.rows and self.unique >= 0.97 and self.rows > 1

    @property
    def nearly_key(self) -> bool:
        """True if the column can be the key of a table in which some ids are repeated or missing."""
        return self.identifier and self.present >= 0.9 * self.rows and self.unique >= 0.75 and self.rows > 1

    @property
    def identifier(self) -> bool:
        """True if the values can be ids."""
        spaced = self.spaces >= 0.5 and not ("id" in self.means and "title" not in self.means)
        return self._can_be_id and self.distinct > 1 and not spaced

    @property
    def _can_be_id(self) -> bool:
        """True for integers and texts, and for other numbers if the name of the column suggests ids."""
        return self.kind in ("integer", "text") or (
            self.kind == "number" and "id" in self.means and not self.means & {"price", "quantity", "time", "rating"}
        )

    def describe(self) -> str:
        """Describe the kind, the counts and a few values in one line."""
        extent = (
            f"{self.low:g} to {self.high:g}, "
            if self.low is not None and self.high is not None and self.kind in ("integer", "number")
            else ""
        )
        empty = f", {self.rows - self.present:,} empty" if self.present < self.rows else ""
        return f"{self.kind}, {extent}{self.distinct:,} distinct in {self.present:,}{empty}; e.g. {', '.join(self.examples[:3])}"

    def told_broken(self) -> str:
        """Describe the number and the positions of the broken cells."""
        places = ", ".join(f"row {row}: {text!r}" for row, text in self.broken_at)
        return f"{self.broken:,} of {self.present + self.broken:,} cells of {self.name} cannot be read ({places})"


class _Basic(TypedDict, total=False):
    name: str
    rows: int
    means: frozenset[str]
    present: int
    distinct: int
    examples: tuple[str, ...]
    values: tuple[str, ...]


def facts(values: pl.Series) -> Column:
    """Describe the values of a column.

    Args:
        values: values as read from the file (texts if the file is a CSV).
    """
    basic: _Basic = {
        "name": values.name,
        "rows": len(values),
        "means": meanings(values.name),
        "present": 0,
        "distinct": 0,
    }
    if values.dtype.is_nested():
        kind = "list" if isinstance(values.dtype, pl.List) else "other"
        return replace(Column(kind=kind, **basic), present=len(values) - values.null_count())
    if values.dtype == pl.Categorical or isinstance(values.dtype, pl.Enum):
        values = values.cast(pl.String)
    if values.dtype == pl.String:
        values = values.str.strip_chars().replace({"": None})
        return _text(values, basic | _counts(values.drop_nulls()))
    if values.dtype == pl.Boolean:
        return Column(kind="flag", **(basic | _counts(values.drop_nulls())))
    if values.dtype.is_temporal():
        kind = "time" if values.dtype in (pl.Datetime, pl.Date) else "other"
        return Column(kind=kind, formats=("",), **(basic | _counts(values.drop_nulls())))
    if values.dtype.is_numeric():
        numbers = as_numbers(values)
        exact = values if values.dtype.is_integer() else numbers
        return _with_broken_cells(_number(exact.drop_nulls(), basic), values, numbers)
    return Column(kind="other", **(basic | _counts(values.drop_nulls())))


def _counts(present: pl.Series) -> _Basic:
    """Return the number of values, the number of distinct ones, and examples."""
    distinct = present.unique(maintain_order=True)
    counts: _Basic = {
        "present": len(present),
        "distinct": len(distinct),
        "examples": tuple(str(value) for value in distinct.head(5).to_list()),
    }
    if len(distinct) <= FEW:
        counts["values"] = tuple(sorted(str(value) for value in distinct.to_list()))
    return counts


def _with_broken_cells(column: Column, values: pl.Series, read: pl.Series) -> Column:
    rows = positions(broken(values, read))
    places = tuple((int(row) + 1, str(values[int(row)])) for row in rows[:SHOWN])
    return replace(column, broken=len(rows), broken_at=places)


def _number(present: pl.Series, basic: _Basic, forms: tuple[NumberForm, ...] = (PLAIN,)) -> Column:
    """Describe a column of finite numbers."""
    basic = basic | _counts(present)
    numbers = present.cast(pl.Float64)
    whole = present.dtype.is_integer() or (len(present) > 0 and bool((numbers == numbers.floor()).all()))
    if not len(present):
        return Column(kind="integer" if whole else "number", forms=forms, **basic)
    low, high = float(numbers.min()), float(numbers.max())  # type: ignore[arg-type]
    kind = "flag" if whole and {low, high} <= {0.0, 1.0} and len(forms) == 1 else "integer" if whole else "number"
    found = Column(
        kind=kind,
        low=low,
        high=high,
        forms=forms,
        negative=int((numbers < 0).sum()),
        zeros=int((numbers == 0).sum()),
        **basic,
    )
    if kind == "flag" or forms != (PLAIN,):
        return found
    units = units_of(present)
    if not units and "time" in found.means and serial_days(numbers):
        units = ("excel",)
    dates = present.cast(pl.Int64, strict=False).cast(pl.String) if whole and low >= 0 else None
    return replace(found, units=units, formats=time_forms(dates) if dates is not None and not units else ())


def _text(texts: pl.Series, basic: _Basic) -> Column:
    present = texts.drop_nulls()
    sample = present.unique(maintain_order=True).head(2000)
    lengths, spaces = sample.str.len_chars().mean(), sample.str.contains(" ", literal=True).mean()
    plain = Column(kind="text", characters=float(lengths or 0), spaces=float(spaces or 0), **basic)  # type: ignore[arg-type]
    stripped_texts = stripped(texts)
    if stripped_texts.null_count() == len(stripped_texts):
        return plain
    truth = read_truth(texts)
    if understood(truth) and (len(truth.sides) == 2 or len(basic["examples"][0]) > 1 or basic["examples"][0] in "01"):
        return _whole_or_mostly(plain, _flag(plain, truth), texts, truth.values)
    padded = bool(stripped_texts.str.contains(r"^0\d+$").any())  # 00123 is an id rather than a number
    forms = number_forms(texts) if not padded else ()
    if forms:
        numbers = as_numbers(texts, forms[0])
        exact = stripped_texts.cast(pl.Int64, strict=False) if forms == (PLAIN,) else numbers
        if exact.null_count() != numbers.null_count():
            if bool(stripped_texts.str.contains(LONG).any()):  # different ids of this length can be equal as floats
                return plain
            exact = numbers
        found = replace(_number(exact.drop_nulls(), basic, forms), examples=plain.examples)
        return _whole_or_mostly(plain, found, texts, numbers)
    if formats := time_forms(texts):
        times = as_times(texts, form=formats[0] or None)
        kept = texts.filter(times.is_not_null())
        return _whole_or_mostly(plain, Column(kind="time", formats=formats, **(basic | _counts(kept))), texts, times)
    return plain


def _flag(plain: Column, truth: Truth) -> Column:
    return replace(plain, kind="flag", present=len(truth.values) - truth.values.null_count(), mostly=None)


def _whole_or_mostly(plain: Column, found: Column, texts: pl.Series, read: pl.Series) -> Column:
    """Return ``found``, the description as the recognised kind.

    If some cells do not fit this kind, return ``plain`` with ``found`` as ``mostly``.
    """
    found = _with_broken_cells(found, texts, read)
    return replace(plain, mostly=found) if found.broken else found
