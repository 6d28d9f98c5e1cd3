"""Parse cells as numbers. Decimal and thousands separators are inferred from a column as a whole; currencies and words
for missing values are recognised."""

from __future__ import annotations

import re
from collections.abc import Callable
from functools import cache
from typing import Literal

import polars as pl

NumberForm = Literal["1234.50", "1234,50", "1,234.50", "1.234,50", "1 234,50", "1 234.50", "1'234.50"]
"""Notation of numbers, named by an example."""
PLAIN: NumberForm = "1234.50"
FORMS: dict[NumberForm, tuple[str, str]] = {
    "1234.50": ("", "."),
    "1234,50": ("", ","),
    "1,234.50": (",", "."),
    "1.234,50": (".", ","),
    "1 234,50": (" ", ","),
    "1 234.50": (" ", "."),
    "1'234.50": ("'", "."),
}
"""Thousands separator and decimal separator of each notation. The simplest notations come first."""
BY_DECIMAL: dict[str, NumberForm] = {".": "1234.50", ",": "1.234,50"}
"""Default notation of a file, by its decimal separator."""
MISSING = ("", "na", "n/a", "#n/a", "nan", "null", "none", "nil", "\\n", "-", "--", "–", "—", "?", "(null)", "#null!")
"""Contents of a cell, in lower case, that stand for a missing value."""
MOST = 0.95
"""If at least this share of a column's cells is valid, the other cells are treated as broken."""
MOST_NUMBERS = 0.8
"""Smallest share of numbers in a column of numbers. It is lower than ``MOST`` because a few words do not make a column
a text column."""

CURRENCY = (
    r"R\$|[\p{Sc}]|元|円|zł|Kč|руб\.?|р\.|kr\.?|Ft|лв\.?|Rs\.?|"
    r"EUR|USD|GBP|CHF|JPY|CNY|RMB|INR|SEK|NOK|DKK|PLN|CZK|HUF|RUB|TRY|TL|BRL|CAD|AUD|NZD|KRW|MXN|ZAR"
)
SPACES = r"[\s\u00a0\u202f\u2009]"


def stripped(values: pl.Series) -> pl.Series:
    """Strip surrounding spaces from texts, and replace words for missing values by null."""
    texts = values.cast(pl.String).str.strip_chars()
    return texts.to_frame("x").select(
        pl.when(~pl.col("x").str.to_lowercase().is_in(MISSING)).then(pl.col("x")).alias(values.name)
    )[values.name]


def as_numbers(values: pl.Series, form: NumberForm = PLAIN) -> pl.Series:
    """Parse the values of a column as finite numbers (Float64). Missing values and cells that are not numbers are null.

    Args:
        values: numbers, booleans or texts.
        form: notation of the numbers in texts. Currencies around a number, ``(5)`` and ``5-`` for -5, and ``5,-`` for 5
            are recognised in every notation.
    """
    if values.dtype.is_numeric() or values.dtype == pl.Boolean:
        numbers = values.cast(pl.Float64)
        return numbers.to_frame("x").select(pl.when(pl.col("x").is_finite()).then(pl.col("x")).alias(values.name))[
            values.name
        ]
    if values.dtype == pl.Null:
        return values.cast(pl.Float64)
    texts = stripped(values)
    return _parsed(texts, form, lambda: _bare(texts))


def _parsed(texts: pl.Series, form: NumberForm, bare: Callable[[], pl.Series]) -> pl.Series:
    """Parse stripped texts; ``bare`` returns them without currencies, and is called only if some of them do not fit the
    notation."""
    fits = texts.str.contains(_pattern(form))
    if not bool(fits.all()):  # all() ignores nulls
        texts = bare()
        fits = texts.str.contains(_pattern(form))
    thousands, decimal = FORMS[form]
    if thousands:
        texts = texts.str.replace_all(thousands, "", literal=True)
    if decimal != ".":
        texts = texts.str.replace(decimal, ".", literal=True)
    numbers = texts.cast(pl.Float64, strict=False)
    frame = pl.DataFrame({"x": numbers, "fits": fits.fill_null(False)})
    return frame.select(
        pl.when(pl.col("fits") & pl.col("x").is_finite()).then(pl.col("x")).alias(texts.name)
    ).to_series()


def said_missing(values: pl.Series) -> dict[str, int]:
    """Return the number of cells with each word that stands for a missing value (``n/a``, ``NULL``), the most frequent
    word first. Empty cells are not counted."""
    if values.dtype != pl.String:
        return {}
    texts = values.str.strip_chars()
    present = texts.filter(texts.is_not_null() & (texts != "") & stripped(values).is_null())
    counts = present.value_counts(name="cells").sort("cells", values.name, descending=[True, False])
    return dict(counts.iter_rows())


def broken(values: pl.Series, read: pl.Series) -> pl.Series:
    """Return a mask of the broken cells: those with a value in ``values`` and null in ``read``, the parsed column."""
    if values.dtype.is_float():
        values = values.fill_nan(None)
    present = stripped(values) if values.dtype == pl.String else values
    return present.is_not_null() & read.is_null()


def number_forms(values: pl.Series) -> tuple[NumberForm, ...]:
    """Return the possible notations of the numbers in a column of texts: several if the cells are ambiguous, none if
    too few are numbers."""
    counts = stripped(values).drop_nulls().value_counts(sort=False, name="rows")
    cells, rows = counts[values.name], counts["rows"]
    if not len(cells) or not bool(cells.head(1000).str.contains(r"\d").any()):
        return ()
    bare = cache(lambda: _bare(cells))  # the same for every notation
    read = {form: _parsed(cells, form, bare) for form in FORMS}
    known = {form: int(rows.filter(numbers.is_not_null()).sum()) for form, numbers in read.items()}
    best = max(known.values())
    if best < MOST_NUMBERS * int(rows.sum()):
        return ()
    chosen: list[NumberForm] = []
    for form in FORMS:
        if known[form] == best and not any(read[form].equals(read[other]) for other in chosen):
            chosen.append(form)
    return tuple(chosen)


def _pattern(form: NumberForm) -> str:
    thousands, decimal = FORMS[form]
    sign, point = "[+-]?", re.escape(decimal)
    if not thousands:
        power = r"(?:[eE][+-]?\d+)?" if decimal == "." else ""
        return rf"^{sign}(?:\d+{point}?\d*|{point}\d+){power}$"
    step = r"\d{2,3}" if thousands == "," else r"\d{3}"  # Indian grouping: 12,34,567
    group = re.escape(thousands)
    return rf"^{sign}(?:[1-9]\d{{0,2}}(?:{group}{step})*{group}\d{{3}}(?:{point}\d+)?|\d+(?:{point}\d+)?|{point}\d+)$"


def _bare(texts: pl.Series) -> pl.Series:
    """Remove currencies from texts, and move the minus sign to the front."""
    cell = (
        pl.col("x")
        .str.replace_all(r"[−﹣－]", "-")
        .str.replace_all("[’`´]", "'")
        .str.replace_all(SPACES, " ")
        .str.replace(rf"^(?P<sign>[+-]?) ?(?:{CURRENCY}) ?(?P<rest>[-+(.,\d])", "${sign}${rest}")
        .str.replace(rf"(?P<rest>[-–—.,)\d]) ?(?:{CURRENCY})$", "${rest}")
        .str.strip_chars()
        .str.replace(r"^\((?P<number>[\d.,' ]+)\)$", "-${number}")
        .str.replace(r"[.,][-–—]+$", "")
        .str.replace(r"^(?P<number>\d[\d.,' ]*) ?-$", "-${number}")
    )
    return texts.to_frame("x").select(cell.alias(texts.name)).to_series()
