"""Parse cells as times: epochs, written dates, or spreadsheet serial days, inferred from a column as a whole."""

from __future__ import annotations

import re
from functools import cache
from typing import Literal

import polars as pl

from taiji.data.sources.number_cells import MOST, PLAIN, NumberForm, as_numbers, stripped

Unit = Literal["s", "ms", "us", "ns", "excel", "text"]
"""Unit of times that are numbers since 1970; ``excel`` for spreadsheet serial days, ``text`` for written dates."""
MICROSECONDS = {"s": 10**6, "ms": 10**3, "us": 1}
YEARS = (1995, 2036)
"""First plausible year of an event, and the year after the last plausible one."""
WRITTEN_YEARS = (1970, 2101)
"""First plausible year of a written date, and the year after the last plausible one."""
EXCEL_DAY = 86_400_000_000
EXCEL_START = -2_209_161_600_000_000
"""Day 0 of spreadsheets, 1899-12-30, in microseconds since 1970."""
FARTHEST = 253_402_300_800_000_000
"""Start of the year 10000 in microseconds since 1970; later times are invalid."""

COMPARED = 2000
"""Largest number of distinct cells of a column to parse when looking for its format."""
SHAPES = {
    "%Y": r"\d{4}",
    "%y": r"\d{2}",
    "%m": r"\d{1,2}",
    "%d": r"\d{1,2}",
    "%b": "[A-Za-z]{3}",
    "%B": "[A-Za-z]+",
    "%a": "[A-Za-z]{3}",
    "%H": r"\d{1,2}",
    "%I": r"\d{1,2}",
    "%M": r"\d{1,2}",
    "%S": r"\d{1,2}",
    "%.f": r"(?:\.\d+)?",
    "%p": "[AaPp][Mm]",
}
IMPOSSIBLE = 0.2
"""A column counts minutes or seconds since midnight if at least this share of its numbers ends in impossible minutes or
seconds (two digits of 60 or more).

Among the minute counts of a whole day (0 to 1439), 4 in 10 end in two digits of 60 or more.
"""
CLOCK = r"^(?:[01]?\d|2[0-4]):[0-5]\d(?::[0-5]\d(?:[.,]\d+)?)?(?:\s?[AaPp]\.?[Mm]\.?)?$"
QUICK = {10: "%Y-%m-%d", 19: "%Y-%m-%d %H:%M:%S"}
"""Common ISO 8601 formats by the length of their texts. A column with one of them is parsed in one pass."""
ZONE = r"(?P<zone>Z|z|(?:UTC|GMT|utc|gmt)?\s*[+-]\d{1,2}(?::?\d{2})?|UTC|GMT|utc|gmt)"
AFTER_CLOCK = (
    rf"(?P<clock>(?:\d:\d{{2}}|\dT\d{{4}}(?:\d{{2}})?)(?::\d{{2}}(?:[.,]\d+)?)?(?:\s?[AaPp]\.?[Mm]\.?)?)\s*{ZONE}$"
)
ISO = (
    r"^(?P<day>[+-]?\d{4}-\d{1,2}-\d{1,2})(?:[ T_]+(?P<hour>\d{1,2}):(?P<minute>\d{2})"
    r"(?::(?P<second>\d{2})(?:[.,](?P<fraction>\d{1,9})\d*)?)?)?$"
)
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
    "%d-%b-%Y",
    "%d-%b-%y",
    "%d/%b/%Y",
    "%b %d %Y",
    "%d %B %Y",
    "%B %d, %Y",
    "%a, %d %b %Y",
    "%a %b %d %Y",
)
"""Formats of a day other than ISO 8601."""
CLOCKS = (
    "",
    " %H:%M",
    " %H:%M:%S",
    " %H:%M:%S%.f",
    "T%H:%M:%S",
    "T%H:%M:%S%.f",
    " %H时%M分",
    " %H时%M分%S秒",
    " %I:%M %p",
    " %I:%M:%S %p",
    ":%H:%M:%S",
    "-%H:%M:%S",
    " %H.%M",
    " %H.%M.%S",
    ", %H:%M",
    ", %H:%M:%S",
    ", %I:%M %p",
    ", %I:%M:%S %p",
    " %I:%M%p",
    " %I:%M:%S%p",
)
"""Formats of the time of day that follows the day."""
WHOLE = (
    "%Y%m%d%H%M%S",
    "%Y%m%d%H%M",
    "%Y%m%d %H%M%S",
    "%Y%m%dT%H%M%S",
    "%Y-%m-%d %I:%M:%S %p",
    "%Y-%m-%d %I:%M %p",
    "%a %b %d %H:%M:%S %Y",
)
"""Formats that are not a day followed by a time of day."""


def as_times(values: pl.Series, unit: Unit = "text", form: str | None = None, numbers: NumberForm = PLAIN) -> pl.Series:
    """Parse a column as times in microseconds (UTC, naive). Missing values and cells that are not times are null.

    Args:
        values: numbers, texts, dates or date-times.
        unit: unit of numbers, including numbers in a CSV; ``text`` for written dates.
        form: date format in chrono codes (like strftime); None for ISO 8601. A time zone after the time of day is
            recognised with any format.
        numbers: notation of numbers in a CSV.
    """
    if values.dtype.is_temporal():
        return _temporal(values)
    if unit != "text":
        return _epoch(values, unit, numbers)
    if values.dtype.is_float():
        values = values.cast(pl.Int64, strict=False)
    texts = stripped(values).str.replace_all(r"[\s\u00a0\u202f]+", " ")
    texts, offset = _without_zone(texts, form)
    times = _iso(texts) if not form else _formatted(texts, form)
    shifted = pl.DataFrame({"time": times, "offset": offset})
    return shifted.select(
        (pl.col("time") - pl.col("offset").fill_null(0).cast(pl.Duration("us"))).alias(values.name)
    ).to_series()


def with_clock(days: pl.Series, clock: pl.Series) -> pl.Series:
    """Join days and times of day into one column of texts. It is null where either is missing.

    Args:
        days: dates, date-times at midnight, or texts.
        clock: times, texts, or numbers: hours (``9``), digits of hours, minutes and seconds (``936``, ``93620``), or
            minutes or seconds since midnight. The kind of numbers is inferred from the whole column.
    """
    day = days.dt.strftime("%Y-%m-%d") if days.dtype.is_temporal() else stripped(days)
    joined = pl.DataFrame({"day": day, "clock": _clock(clock)})
    return joined.select((pl.col("day") + " " + pl.col("clock")).alias(days.name)).to_series()


def is_clock(values: pl.Series, hours: bool = False) -> bool:
    """Return True if nearly all cells of a column are times of day.

    Args:
        values: texts, times or whole numbers.
        hours: True if numbers up to 23 may be hours.
    """
    if values.dtype == pl.Time:
        return True
    if values.dtype.is_float() or values.dtype.is_temporal() or values.dtype.is_nested():
        return False
    cells = stripped(values).drop_nulls()
    if not len(cells):
        return False
    if bool(cells.str.contains(r"^\d{1,6}$").all()):
        top = int(cells.cast(pl.Int64).max() or 0)  # type: ignore[arg-type]
        if top < 24 and not hours:
            return False
        if since := _since_midnight(
            cells.cast(pl.Int64), top
        ):  # only the range distinguishes times of day from durations
            of_day = cells.cast(pl.Int64) * since / 86_400
            return bool(of_day.max() >= 0.8 and of_day.median() >= 0.2)  # type: ignore[operator]
        cells = _clock(cells)
    return float(cells.str.contains(CLOCK).mean() or 0.0) >= MOST  # type: ignore[arg-type]


def time_forms(values: pl.Series) -> tuple[str, ...]:
    """Return the formats in which nearly all texts of a column are dates. An empty string stands for ISO 8601; several
    formats mean that the values are ambiguous."""
    counts = stripped(values).drop_nulls().value_counts(sort=False, name="rows").head(COMPARED)
    cells, rows = counts[values.name].str.replace_all(r"[\s\u00a0\u202f]+", " "), counts["rows"]
    least = MOST * int(rows.sum())
    if not least or not bool(cells.str.contains(r"\d").any()):
        return ()
    if _count_plausible(as_times(cells), rows, WRITTEN_YEARS) >= least:
        return ("",)
    bare, first = _without_zone(cells, None)[0], cells.head(20).to_list()
    found: dict[str, tuple[int, pl.Series]] = {}
    for day in DAYS:
        for clock in CLOCKS:
            if _collect_if_fits(found, bare, rows, day + clock, first, least):
                break
    for form in WHOLE:
        _collect_if_fits(found, bare, rows, form, first, least)
    most = max((count for count, _ in found.values()), default=0)
    return tuple(form for form, (count, _) in found.items() if count == most)


def units_of(numbers: pl.Series) -> tuple[Unit, ...]:
    """Return the units in which nearly all numbers are plausible event times."""
    units: tuple[Unit, ...] = ("s", "ms", "us", "ns")
    return tuple(
        unit for unit in units if len(numbers) and _count_plausible(_epoch(numbers, unit)) >= MOST * len(numbers)
    )


def serial_days(numbers: pl.Series) -> bool:
    """Return True if nearly all numbers can be spreadsheet serial days."""
    return len(numbers) > 0 and _count_plausible(_epoch(numbers, "excel")) >= MOST * len(numbers)


def _collect_if_fits(
    found: dict[str, tuple[int, pl.Series]],
    cells: pl.Series,
    rows: pl.Series,
    form: str,
    first: list[str],
    least: float,
) -> bool:
    """Return True if a format fits, and add it to ``found`` unless an equivalent format is already there."""
    shape = _shape(form)
    if not any(shape.match(cell) for cell in first):
        return False
    times = _formatted(cells, form)
    count = _count_plausible(times, rows, WRITTEN_YEARS)
    if count < least:
        return False
    if not any(times.equals(other) for _, other in found.values()):
        found[form] = (count, times)
    return True


@cache
def _shape(form: str) -> re.Pattern[str]:
    """Return a pattern that matches the start of every date in this format. Matching it is far faster than parsing the
    date."""
    text = re.escape(form).replace(r"\ ", " ")
    for code, shape in SHAPES.items():
        text = text.replace(re.escape(code), shape)
    return re.compile(text)


def _count_plausible(times: pl.Series, rows: pl.Series | None = None, years: tuple[int, int] = YEARS) -> int:
    """Count the plausible times, or the rows in which they occur if ``rows`` is given."""
    plausible = times.dt.year().is_between(years[0], years[1] - 1).fill_null(False)
    return int(plausible.sum()) if rows is None else int(rows.filter(plausible).sum())


def in_utc(times: pl.Series) -> pl.Series:
    """Convert times with a time zone to UTC times without one; other values are unchanged."""
    if isinstance(times.dtype, pl.Datetime) and times.dtype.time_zone:
        return times.dt.convert_time_zone("UTC").dt.replace_time_zone(None)
    return times


def _temporal(values: pl.Series) -> pl.Series:
    return in_utc(values).cast(pl.Datetime("us"))


def _epoch(values: pl.Series, unit: str, form: NumberForm = PLAIN) -> pl.Series:
    whole = values if values.dtype.is_integer() else None
    if values.dtype == pl.String:
        texts = stripped(values)
        whole = texts.cast(pl.Int64, strict=False)
        whole = whole if whole.null_count() == texts.null_count() else None
    if whole is not None and unit != "excel":
        whole = whole.cast(pl.Int64, strict=False)
        limit = FARTHEST // MICROSECONDS[unit] if unit != "ns" else 2**63 - 1
        whole = whole.to_frame("x").select(pl.when(pl.col("x").abs() <= limit).then(pl.col("x"))).to_series()
        micros = whole // 1000 if unit == "ns" else whole * MICROSECONDS[unit]
        return micros.cast(pl.Datetime("us")).alias(values.name)
    numbers = as_numbers(values, form)
    if unit == "excel":
        scaled = numbers * EXCEL_DAY + EXCEL_START
    else:
        scaled = numbers / 1000 if unit == "ns" else numbers * MICROSECONDS[unit]
    # A float represents a serial day to about a microsecond. Round to milliseconds, as spreadsheets show them.
    rounded = (scaled / 1000).round() * 1000 if unit == "excel" else scaled.round()
    return (
        rounded.to_frame("x")
        .select(pl.when(pl.col("x").abs() < FARTHEST).then(pl.col("x")).cast(pl.Int64).cast(pl.Datetime("us")))
        .to_series()
        .alias(values.name)
    )


def _without_zone(texts: pl.Series, form: str | None) -> tuple[pl.Series, pl.Series]:
    """Split off the time zone after the time of day: return the texts without it, and its offset in microseconds (null
    without a time zone)."""
    none = pl.repeat(None, len(texts), dtype=pl.Int64, eager=True)
    if form and ("%z" in form or "%Z" in form or "%:z" in form or "%#z" in form):
        return texts, none
    zone = texts.str.extract(AFTER_CLOCK, 2)
    if zone.null_count() == len(zone):
        return texts, none
    digits = zone.str.extract(r"[+-](\d{1,2}(?::?\d{2})?)$", 1).str.replace(":", "", literal=True)
    frame = pl.DataFrame({"zone": zone, "digits": digits}).select(
        hours=pl.when(pl.col("digits").str.len_chars() > 2)
        .then(pl.col("digits").str.head(-2))
        .otherwise(pl.col("digits"))
        .cast(pl.Int64, strict=False),
        minutes=pl.when(pl.col("digits").str.len_chars() > 2)
        .then(pl.col("digits").str.tail(2))
        .cast(pl.Int64, strict=False),
        sign=pl.when(pl.col("zone").str.contains("-", literal=True)).then(-1).otherwise(1),
        has_zone=pl.col("zone").is_not_null(),
    )
    offset = frame.select(
        pl.when("has_zone").then(
            pl.col("sign") * (pl.col("hours").fill_null(0) * 60 + pl.col("minutes").fill_null(0)) * 60_000_000
        )
    ).to_series()
    return texts.str.replace(AFTER_CLOCK, "${clock}"), offset


def _iso(texts: pl.Series) -> pl.Series:
    """Parse ISO 8601: all cells in one pass if they share a common format, otherwise field by field."""
    first = texts.head(1000).drop_nulls().head(1).to_list()
    if form := QUICK.get(len(first[0]) if first else 0):
        times = _formatted(texts, form)
        if times.null_count() == texts.null_count():
            return times
    parts = texts.str.extract_groups(ISO).struct.unnest()
    numbers = [pl.col(name).cast(pl.Int64, strict=False).fill_null(0) for name in ("hour", "minute", "second")]
    day = pl.col("day").str.to_date("%Y-%m-%d", strict=False).cast(pl.Datetime("us"))
    hour, minute, second = numbers
    fraction = pl.col("fraction").str.pad_end(9, "0").str.head(6).cast(pl.Int64, strict=False).fill_null(0)
    clock = ((hour * 60 + minute) * 60 + second) * 1_000_000 + fraction
    valid = (minute < 60) & (second <= 60) & ((hour < 24) | ((hour == 24) & (minute == 0) & (second == 0)))
    return parts.select(pl.when(valid).then(day + clock.cast(pl.Duration("us"))).alias(texts.name)).to_series()


def _formatted(texts: pl.Series, form: str) -> pl.Series:
    # A format without seconds needs no default: chrono accepts the hour and minute alone.
    try:
        times = texts.str.to_datetime(form, strict=False, time_unit="us")
    except (pl.exceptions.PolarsError, ValueError):
        return pl.Series(texts.name, [None] * len(texts), pl.Datetime("us"))
    return _temporal(times)


def _clock(values: pl.Series) -> pl.Series:
    if values.dtype == pl.Time or isinstance(values.dtype, pl.Datetime):
        return values.dt.strftime("%H:%M:%S%.6f")
    if values.dtype.is_float():
        values = values.cast(pl.Int64, strict=False)
    texts = stripped(values)
    digits = texts.str.contains(r"^\d{1,6}$").fill_null(False)
    if not bool((digits | texts.is_null()).all()) or texts.null_count() == len(texts):
        return texts
    numbers = texts.cast(pl.Int64, strict=False)
    top = int(numbers.max() or 0)  # type: ignore[arg-type]
    if since := _since_midnight(numbers, top):
        clock = pl.from_epoch(numbers * since, time_unit="s").dt.strftime("%H:%M:%S")
        return clock.alias(values.name)
    padded = texts + ":00" if top < 24 else texts.str.zfill(4) if top < 2400 else texts.str.zfill(6)
    return padded.str.replace(r"^(\d{2})(\d{2})(\d{2})$", "${1}:${2}:${3}").str.replace(
        r"^(\d{2})(\d{2})$", "${1}:${2}"
    )


def _since_midnight(numbers: pl.Series, top: int) -> int:
    """Return 60 if the numbers count minutes since midnight, 1 if they count seconds, and 0 if they are hours or digits
    such as ``93620``."""
    digits = numbers.drop_nulls()
    for limit, seconds, fields in ((1440, 60, (1,)), (86_400, 1, (1, 100))):
        if 24 <= top < limit:
            wrong = pl.select(pl.any_horizontal([digits // field % 100 >= 60 for field in fields])).to_series()
            return seconds if float(wrong.mean() or 0.0) >= IMPOSSIBLE else 0  # type: ignore[arg-type]
    return 0
