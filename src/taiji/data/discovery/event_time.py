"""Propose how to read the times of a log: unit, format, and a second column with the time of day."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import polars as pl

from taiji.data.discovery.columns import Column
from taiji.data.discovery.further import NAMES
from taiji.data.discovery.parts import ANSWERED, Guess, Question
from taiji.data.discovery.table_files import Table
from taiji.data.discovery.words import says
from taiji.data.sources.time_cells import YEARS, as_times, is_clock, time_forms, with_clock

HOUR = "hour hours stunde heure hora 小时 時"
LASTS = f"{NAMES['duration']} minute minutes minuten minutos second seconds sekunden secondes segundos 分钟 秒"
"""Words in the names of columns that hold durations rather than times."""
SINCE = "second seconds secs minute minutes sekunde sekunden minuten 秒 分"
"""Words in the names of columns that count seconds or minutes since midnight."""
ZONE_CELL = r"^([A-Z][A-Za-z]+/[A-Z][A-Za-z_]+|[+-]\d{2}:?\d{2}|UTC|GMT|CET|CEST|E[SD]T|P[SD]T)$"
SHOWN = 5


@dataclass
class EventTime:
    """Proposal for the mapping's ``timestamp``.

    Attributes:
        guesses: guesses by key of the mapping.
        question: question about the format, if it is ambiguous.
        doubts: notes, as sentences.
    """

    guesses: dict[str, Guess] = field(default_factory=dict)
    question: Question | None = None
    doubts: list[str] = field(default_factory=list)


def event_time(log: Table, column: Column, answers: dict[str, str], taken: set[str]) -> EventTime:
    """Propose the unit, the format and the column with the time of day (``clock``).

    Args:
        log: the log.
        column: description of the readable cells of the log's time column.
        answers: the user's answers by key. Answers about the time are removed from this dictionary.
        taken: columns that have another role.
    """
    found = EventTime()
    column = _with_clock(found, log, column, answers, taken)
    form = answers.pop("events.timestamp.format", "")
    unit = answers.pop("events.timestamp.unit", "")
    if not form and (unit or (column.kind in ("integer", "number") and column.units)):
        reasons = ANSWERED if unit else (_unit_reason(column.units[0]),)
        unit = unit or column.units[0]
        found.guesses["events.timestamp.unit"] = Guess(unit, 0.7 if unit == "excel" else 0.95, reasons)
    elif form or len(column.formats) == 1:
        if form or column.formats[0]:
            every = f"{'nearly every' if column.broken else 'every'} value fits this format and no other"
            found.guesses["events.timestamp.format"] = Guess(
                form or column.formats[0], 0.95, ANSWERED if form else (every,)
            )
    elif column.formats:
        choices = tuple(Guess(known, 0.5, (f"{column.examples[0]} has this format",)) for known in column.formats)
        what = f"how the dates in {column.name} are written (the values fit several formats)"
        found.question = Question("events.timestamp.format", what, choices)
    found.doubts += _note_separate_columns(found, log, column, taken)
    if not found.question and "events.timestamp.clock" not in found.guesses:
        found.doubts += _note_implausible_times(log, column, unit, form or next(iter(column.formats), ""))
    return found


def _unit_reason(unit: str) -> str:
    if unit == "excel":
        return "its values are spreadsheet serial days between 1995 and 2035"
    return f"its values, in {unit} since 1970, lie between 1995 and 2035"


def _with_clock(found: EventTime, log: Table, column: Column, answers: dict[str, str], taken: set[str]) -> Column:
    """If another column holds the time of day, return the description of the combined times; otherwise return
    ``column``."""
    clock = answers.pop("events.timestamp.clock", "")
    sure, reasons = 1.0, ANSWERED
    if not clock and column.kind in ("time", "integer") and not column.units and _day_only(log, column):
        free = [other for other in log.columns.values() if other.name not in taken]
        clock = next((other.name for other in free if _holds_time_of_day(log, other)), "")
        sure, reasons = 0.9, (f"{column.name} holds only days, and this column holds times of day",)
    if clock in ("", "null"):
        return column
    found.guesses["events.timestamp.clock"] = Guess(clock, sure, reasons)
    joined = with_clock(log.frame[column.name], log.frame[clock])
    shown = tuple(joined.drop_nulls().head(1).to_list())
    return replace(column, kind="time", units=(), formats=time_forms(joined), examples=shown or column.examples)


def _holds_time_of_day(log: Table, column: Column) -> bool:
    """Return True if a column holds times of day.

    If its name does not suggest a time, at least one value must have am or pm, or an hour after 12.
    """
    values = log.frame[column.name]
    hours = says(column.name, HOUR)
    if hours or "time" in column.means or _counts_since_midnight(column):
        return is_clock(values, hours=hours)
    if says(column.name, LASTS) or not is_clock(values):
        return False
    cells = values.cast(pl.String)
    return bool(cells.str.contains(r"(?i)[ap]\.?m\.?$|^(1[3-9]|2[0-3]):").any())


def _counts_since_midnight(column: Column) -> bool:
    """Return True if a column of integers is named like a count of the seconds or minutes since midnight."""
    return says(column.name, SINCE) and not says(column.name, NAMES["duration"]) and column.kind == "integer"


def _note_separate_columns(found: EventTime, log: Table, column: Column, taken: set[str]) -> list[str]:
    """Return notes on times without a time of day, and on time zones in a separate column."""
    notes = []
    free = [other for other in log.columns.values() if other.name not in taken and other.name != column.name]
    day = "events.timestamp.clock" not in found.guesses and column.kind in ("time", "integer") and not column.units
    if day and column.distinct < 0.9 * column.present and _day_only(log, column):
        notes.append(
            f"{column.name} holds days without a time of day, so the events of a user within one day have no order. If another column has the time of day, add --set events.timestamp.clock=COLUMN."
        )
    for other in free:
        if other.kind == "text" and other.values and column.kind == "time":
            cells = log.frame[other.name].drop_nulls().head(1000)
            if bool(cells.str.contains(ZONE_CELL).all()):
                notes.append(
                    f"{other.name} holds time zones ({', '.join(other.values[:3])}); times without a time zone are read as UTC. If they are local times, append the time zone to each time."
                )
    return notes


def _day_only(log: Table, column: Column) -> bool:
    """Return True if no value has a time of day."""
    values = log.frame[column.name]
    if values.dtype == pl.Date:
        return True
    times = as_times(values, form=next(iter(column.formats), "") or None).drop_nulls()
    return len(times) > 0 and bool((times.dt.truncate("1d") == times).all())


def _note_implausible_times(log: Table, column: Column, unit: str, form: str) -> list[str]:
    """Return notes on rows with an implausible time. Such rows are kept."""
    values = log.frame[column.name]
    times = as_times(values, unit or "text", form or None)  # type: ignore[arg-type]
    years = times.dt.year()
    rows = (~years.is_between(YEARS[0] - 5, YEARS[1] - 1)).fill_null(False).arg_true()
    if not len(rows):
        return []
    shown = ", ".join(f"row {int(row) + 1}: {values[int(row)]} is {times[int(row)]}" for row in rows[:SHOWN])
    more = f" and {len(rows) - SHOWN:,} more" if len(rows) > SHOWN else ""
    return [
        f"{log.path.name}: {len(rows):,} of {len(values):,} times in {column.name} lie before {YEARS[0] - 5} or after {YEARS[1] - 1} ({shown}{more}). Correct these cells, or empty them to drop the rows."
    ]
