"""Describe validated tables for the reading report: label rates, range of times, ids with many events, and negative
amounts."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import polars as pl

from taiji.data.personal import private
from taiji.data.reading_checks import findings
from taiji.data.reading_report import AmountReading, IdReading, LabelReading, ReadingReport, TimeReading
from taiji.data.schema import IDS, Tables

EARLIEST = datetime(1990, 1, 1)
"""Time before which events are reported as implausible. A wrong unit and missing times often lead to such times."""


def surveyed(tables: Tables, now: datetime | None = None) -> Tables:
    """Complete the reading report of validated tables. A report that already lists labels is unchanged.

    Args:
        tables: validated tables.
        now: current time (UTC, naive); by default the time of the system clock.
    """
    given = tables.reading or ReadingReport()
    if given.labels:
        return tables
    now = datetime.now(UTC).replace(tzinfo=None) if now is None else now
    ids = {match.column: match for match in given.ids}
    report = given.model_copy(
        update={
            "labels": tuple(_labels(tables)),
            "times": _times(tables.events["timestamp"], now + timedelta(days=1)),
            "ids": tuple(_ids(tables, name, column, ids.get(column)) for name, column in IDS.items()),
            "amounts": tuple(_amounts(tables)),
            "profile": tuple(name for name in tables.users.columns if name != "user_id"),
            "private": tuple(
                name for name in tables.users.columns if name != "user_id" and private(name, tables.users[name])
            ),
            "repeated": len(tables.events) - tables.events.n_unique(),
        }
    )
    return replace(tables, reading=report.model_copy(update={"findings": findings(report)}))


def _labels(tables: Tables) -> list[LabelReading]:
    events, readings = tables.events, []
    for name in ("click", "conversion", *(task.name for task in tables.event_columns.labels)):
        known = events[name].drop_nulls()
        if len(known) or name != "conversion" or tables.event_columns.conversion:
            mean = float(known.cast(pl.Float64).to_numpy().mean()) if len(known) else None
            readings.append(LabelReading(name=name, rows=len(events), known=len(known), mean=mean))
    return readings


def _times(times: pl.Series, latest: datetime) -> TimeReading:
    commonest = times.value_counts(sort=True).sort("count", "timestamp", descending=[True, False]).head(1)
    moment, rows = commonest.row(0)
    return TimeReading(
        rows=len(times),
        first=times.min().isoformat(),  # type: ignore[union-attr]
        last=times.max().isoformat(),  # type: ignore[union-attr]
        early=int((times < EARLIEST).sum()),
        late=int((times > latest).sum()),
        commonest=moment.isoformat(),
        commonest_rows=int(rows),
    )


def _ids(tables: Tables, name: str, column: str, given: IdReading | None) -> IdReading:
    rows = tables.events[column].value_counts().sort("count", column, descending=[True, False])
    ids = len(getattr(tables, name))
    match = given or IdReading(
        column=column,
        table=name,
        ids=ids,
        used=len(rows),
        event_ids=len(rows),
        event_ids_known=len(rows),
        rows=len(tables.events),
        rows_known=len(tables.events),
    )
    busiest, count = rows.row(0)
    return match.model_copy(update={"busiest": str(busiest), "busiest_rows": int(count)})


def _amounts(tables: Tables) -> list[AmountReading]:
    readings = []
    for name, frame in (("items", tables.items), ("events", tables.events)):
        values = frame["price"].drop_nulls()
        if len(values):
            readings.append(
                AmountReading(table=name, column="price", values=len(values), negative=int((values < 0).sum()))
            )
    return readings
