"""Parse the cells of a file as the mapping declares: numbers, times, yes and no, and labels. Invalid cells are reported
with their positions."""

from __future__ import annotations

import operator
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import polars as pl

from taiji.core.errors import ConfigError, InputError
from taiji.data.reading_report import Reading
from taiji.data.schema import SHOWN, positions, row_list
from taiji.data.sources.column_mapping import FileMapping, TimeMapping, Unusable
from taiji.data.sources.label_rules import Label, Rule, evaluate, number_text
from taiji.data.sources.number_cells import (
    BY_DECIMAL,
    NumberForm,
    as_numbers,
    broken,
    number_forms,
    said_missing,
    stripped,
)
from taiji.data.sources.time_cells import as_times, time_forms, with_clock
from taiji.data.sources.truth_cells import NO, YES, read_truth, understood

SIGNS: dict[str, Callable[[Any, Any], Any]] = {
    ">=": operator.ge,
    "<=": operator.le,
    "==": operator.eq,
    "!=": operator.ne,
    ">": operator.gt,
    "<": operator.lt,
}
NAMED = 8
"""Largest number of distinct values that a message lists."""


@dataclass
class Cells:
    """Parser of the columns of one file.

    An invalid cell raises an error (``unusable: error``) or becomes null and is counted in ``reading`` (``drop``). A
    column that has values, but no valid one, always raises an error.

    Attributes:
        table: ``items``, ``users`` or ``events``.
        frame: columns as read from the file (texts if the file is a CSV).
        path: path of the file, for messages.
        plan: part of the mapping that describes the file.
        unusable: handling of invalid cells, ``error`` or ``drop``.
        reading: report to which counts of parsed and invalid cells are added.
    """

    table: str
    frame: pl.DataFrame
    path: Path
    plan: FileMapping
    unusable: Unusable
    reading: Reading
    _reported: set[tuple[str, str]] = field(default_factory=set)

    def __post_init__(self) -> None:
        """Raise an error if the mapping declares the notation of numbers for a column that is not read."""
        if unknown := [column for column in self.plan.numbers if column not in self.frame.columns]:
            raise ConfigError(
                "A mapping declares the notation of numbers for a column that is not used.",
                where=f"{self.table}.numbers.{unknown[0]}",
                expected=f"one of {', '.join(self.frame.columns)}",
                found=", ".join(unknown),
                fix="remove the column from numbers, or correct its name",
            )

    def form(self, column: str) -> NumberForm:
        """Return the notation of the numbers in a column."""
        return self.plan.numbers.get(column, BY_DECIMAL[self.plan.decimal])

    def number(self, column: str, part: str, *, least: float | None = None) -> pl.Series:
        """Return a column as finite numbers. Numbers below ``least`` are invalid."""
        values = self.frame[column]
        numbers = as_numbers(values, self.form(column))
        wanted = f"a number written as {self.form(column)}" if values.dtype == pl.String else "a finite number"
        if least is not None:
            numbers = pl.DataFrame({"x": numbers}).select(pl.when(pl.col("x") >= least).then("x")).to_series()
            wanted += f" of at least {least:g}"
        fix = ""
        if values.dtype == pl.String and bool(broken(values, numbers).any()):
            others = [form for form in number_forms(values) if form != self.form(column)]
            fix = (
                f'the numbers of the column look like {others[0]}: declare numbers: {{{column}: "{others[0]}"}}'
                if others
                else ""
            )
        return self._checked(values, numbers, part, wanted, fix).alias(column)

    def time(self, plan: TimeMapping, part: str) -> pl.Series:
        """Return one column, or a column of days and a column of times of day, as timestamps."""
        values = self.frame[plan.column]
        plain = plan.unit == "text" and plan.clock is None and not values.dtype.is_temporal()
        if plain and values.dtype != pl.String and not (plan.format and values.dtype.is_numeric()):
            return values  # validation reports that these are not times
        texts = with_clock(values, self.frame[plan.clock]) if plan.clock else values
        form = None if values.dtype.is_temporal() and plan.clock and not plan.format else plan.format
        times = as_times(texts, plan.unit, form, self.form(plan.column))
        wrong = broken(values, times)
        if plan.clock:  # a day without a time of day is a missing time, not a broken cell
            wrong &= broken(self.frame[plan.clock], times)
        fix = ""
        if bool(wrong.any()) and texts.dtype == pl.String:
            others = [known or "ISO 8601" for known in time_forms(texts) if (known or None) != form]
            fix = f"nearly all cells have the format {' or '.join(others)}: declare it as format" if others else ""
        wanted = "a number of seconds since 1970" if plan.unit == "s" else "a number in the declared unit, " + plan.unit
        if plan.unit == "text":
            wanted = f"dates written as {plan.format or '2024-12-31 23:59:59 (ISO 8601)'}"
        return self._checked(
            values,
            times,
            part,
            wanted,
            fix
            or "declare the unit (s, ms, us, ns, excel) or the format of the column in the mapping, or correct these rows",
            wrong,
        )

    def label(self, rule: Rule, part: str) -> pl.Series:
        """Evaluate the rule of a label: 0 or 1, or null where missing values leave the result open, (n,) int8."""
        if isinstance(rule, Label) and rule.column is None:
            return pl.repeat(int(float(str(rule.value))), self.frame.height, dtype=pl.Int8, eager=True)
        return evaluate(rule, lambda test: self._test(test, part)).cast(pl.Int8)

    def grades(self, column: str, part: str, grades: tuple[float | str, ...]) -> pl.Series:
        """Return the position of each value in ``grades``, counted from 0, (n,) int64.

        A value that is not a grade is invalid.
        """
        values = self.frame[column]
        texts = [_spelt(grade) for grade in grades]
        named = any(isinstance(grade, str) for grade in grades)
        given = _texts(values) if named else as_numbers(values, self.form(column))
        found = given.replace_strict(
            texts if named else list(grades), list(range(len(texts))), default=None, return_dtype=pl.Int64
        )
        expected = f"one of {', '.join(texts)}"
        return self._checked(
            values,
            found,
            part,
            expected,
            "add the value to the grades of the label at the right position, or correct these rows",
            message="A value is not among the grades in the mapping.",
        )

    def _test(self, test: Label, part: str) -> pl.Series:
        column = str(test.column)
        values = self.frame[column]
        if test.sign is None:
            return self._truth(column, part)
        if test.sign in ("is null", "is not null"):
            present = (
                stripped(values)
                if values.dtype == pl.String
                else values.fill_nan(None)
                if values.dtype.is_float()
                else values
            )
            return present.is_null() if test.sign == "is null" else present.is_not_null()
        if values.dtype == pl.Boolean:
            return self._compared(
                values.cast(pl.Float64), test, tuple(self._yes_or_no(column, value) for value in test.values)
            )
        if any(isinstance(value, str) for value in test.values) and not values.dtype.is_numeric():
            return self._named(values, test, part)
        wanted = tuple(_number(value) for value in test.values)
        if None in wanted:
            raise InputError(
                "A rule compares a column of numbers with a text.",
                where=f"{self.path}, column {column}, {part}",
                expected=f"a number, as in the column ({', '.join(map(str, values.drop_nulls().head(3)))})",
                found=", ".join(map(repr, test.values)),
                fix="correct the rule in the mapping",
            )
        if values.dtype == pl.String and set(wanted) <= {0.0, 1.0} and not number_forms(values):
            truth = read_truth(values)
            if understood(truth):
                return self._compared(self._truth(column, part).cast(pl.Float64), test, wanted)
        return self._compared(self.number(column, part), test, wanted)

    def _truth(self, column: str, part: str) -> pl.Series:
        values = self.frame[column]
        truth = read_truth(values)
        if not understood(truth) and truth.known < 1:
            wrong = positions(broken(values, truth.values))
            raise InputError(
                "A label is neither 0 nor 1 (neither yes nor no).",
                where=f"{self.path}, column {part} (read from {column}), {row_list(wrong)}",
                expected="0 and 1, true and false, yes and no (in one of many languages), or a single mark and empty cells",
                found=_distinct_values(values),
                fix=f"declare which values mean yes, for instance {part}: {column} == {_first_value(values)}",
            )
        if truth.mark:
            self.reading.note(
                self.table, f"{column} holds only {truth.mark!r} and empty cells; an empty cell is read as no."
            )
        return self._checked(values, truth.values, part, "yes or no (0 or 1)", "correct these rows")

    def _named(self, values: pl.Series, test: Label, part: str) -> pl.Series:
        """Return True where the text in a column satisfies a test, False where it does not, null where it is missing.

        A constant that occurs in no row is reported. It is rejected if a value of the column differs from it only in
        case or surrounding spaces.
        """
        texts = _texts(values)
        wanted = [_spelt(value) for value in test.values]
        for value in wanted:
            if not bool((texts == value).any()):
                near = [
                    text
                    for text in texts.unique(maintain_order=True).drop_nulls().head(1000)
                    if _folded(text) == _folded(value)
                ]
                if near:
                    raise InputError(
                        "A rule compares a column with a text that occurs in no row.",
                        where=f"{self.path}, column {values.name}, {part}",
                        expected=f"{near[0]!r}, as spelt in the file",
                        found=repr(value),
                        fix="correct the rule in the mapping",
                    )
                self.reading.note(
                    self.table,
                    f"{part} compares {values.name} with {value!r}, which occurs in no row (the values are {_distinct_values(values)}).",
                )
        self._checked(values, texts, part, "a text", "")
        found = texts.is_in(wanted)
        return ~found if test.sign in ("!=", "not in") else found

    def _compared(self, numbers: pl.Series, test: Label, wanted: tuple[float | None, ...]) -> pl.Series:
        if test.sign in ("in", "not in"):
            found = numbers.is_in(list(wanted))
            return ~found if test.sign == "not in" else found
        return pl.Series(SIGNS[str(test.sign)](numbers, wanted[0]))

    def _yes_or_no(self, column: str, value: float | str) -> float:
        folded = str(value).strip().lower() if isinstance(value, str) else f"{value:g}"
        if folded in YES or folded in NO:
            return float(folded in YES)
        raise InputError(
            "A rule compares a Boolean column with a value other than true and false.",
            where=f"{self.path}, column {column}",
            expected="1, 0, true or false",
            found=repr(value),
            fix="correct the rule in the mapping",
        )

    def _report_missing_words(self, values: pl.Series) -> None:
        """Report the words of a column that were read as missing values, once per column."""
        if any(column == values.name for column, _ in self._reported):
            return
        if words := said_missing(values):
            count, shown = sum(words.values()), ", ".join(map(repr, list(words)[:SHOWN]))
            self.reading.note(self.table, f"{count:,} cells of {values.name} contain {shown} and were read as missing.")

    def _checked(
        self,
        values: pl.Series,
        read: pl.Series,
        part: str,
        expected: str,
        fix: str,
        wrong: pl.Series | None = None,
        *,
        message: str = "",
    ) -> pl.Series:
        """Report invalid cells, or raise an error if the mapping does not allow them, and return ``read``."""
        rows = positions(broken(values, read) if wrong is None else wrong)
        present = len(rows) + len(read) - read.null_count()
        examples = [str(value) for value in values.gather(rows[:SHOWN]).to_list()]
        if len(rows) and (self.unusable == "error" or len(rows) == present):
            time = read.dtype.is_temporal()
            raise InputError(
                message or f"A {'timestamp' if time else 'value'} is invalid.",
                where=f"{self.path}, column {values.name}, {row_list(rows)}",
                expected=expected,
                found=", ".join(map(repr, examples)),
                fix=f"{fix or 'correct these rows, or name another column in the mapping'}"
                + ("" if len(rows) == present else "; or set `unusable: drop` to ignore such cells"),
            )
        if (values.name, part) not in self._reported:
            self._report_missing_words(values)
            self._reported.add((values.name, part))
            places = [int(row) + 1 for row in rows[:SHOWN]]
            self.reading.column(
                self.table,
                values.name,
                part,
                values=present,
                understood=present - len(rows),
                places=places,
                examples=examples,
            )
        return read


def blank_as_null(values: pl.Series) -> pl.Series:
    """Strip surrounding spaces from texts, and replace empty ones by null."""
    return values.str.strip_chars().replace({"": None})


def _texts(values: pl.Series) -> pl.Series:
    return blank_as_null(values.cast(pl.String))


def _folded(text: str) -> str:
    return text.strip().casefold()


def _spelt(value: float | str) -> str:
    """Return a value as text; a whole number has all of its digits and no point."""
    return value if isinstance(value, str) else number_text(value)


def _number(value: float | str) -> float | None:
    try:
        return float(value)
    except ValueError:
        return None


def _distinct_values(values: pl.Series) -> str:
    found = values.drop_nulls().unique(maintain_order=True)
    shown = ", ".join(repr(str(value)) for value in found.head(NAMED).to_list())
    return shown + (f" and {len(found) - NAMED:,} others" if len(found) > NAMED else "")


def _first_value(values: pl.Series) -> str:
    found = values.drop_nulls().head(1).to_list()
    return repr(found[0]) if found else "1"
