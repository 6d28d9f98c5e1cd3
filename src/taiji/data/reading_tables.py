"""Convert a reading report to small tables of text, for all pages that show it."""

from __future__ import annotations

from taiji.core.number_format import thousands
from taiji.data.reading_report import ReadingReport

Shown = tuple[str, tuple[str, ...], list[tuple[str, ...]]]
"""Title, column names and rows of a table."""


def reading_tables(report: ReadingReport) -> list[Shown]:
    """Return the tables of a report that have rows."""
    tables: list[Shown] = [
        (
            "Files",
            ("table", "file", "rows", "used", "left out"),
            [
                (
                    file.table,
                    file.file,
                    thousands(file.rows),
                    thousands(file.used),
                    "; ".join(f"{thousands(left.rows)} {left.reason}" for left in file.left_out) or "none",
                )
                for file in report.files
            ],
        ),
        (
            "Columns with unreadable values",
            ("file", "column", "read as", "values", "readable", "examples of unreadable values"),
            [
                (
                    file.file,
                    column.column,
                    column.part,
                    thousands(column.values),
                    _share(column.understood, column.values),
                    ", ".join(column.examples),
                )
                for file in report.files
                for column in file.columns
                if column.understood < column.values
            ],
        ),
        (
            "Ids",
            (
                "id",
                "events with a known id",
                "distinct ids of events that occur in the table",
                "ids of the table that occur in events",
                "unknown ids that differ only in spelling",
            ),
            [
                (
                    match.column,
                    f"{thousands(match.rows_known)} of {thousands(match.rows)}",
                    f"{thousands(match.event_ids_known)} of {thousands(match.event_ids)}",
                    f"{thousands(match.used)} of {thousands(match.ids)} {match.table}",
                    thousands(match.near),
                )
                for match in report.ids
            ],
        ),
        (
            "Labels",
            ("label", "known for events", "mean of known values"),
            [
                (
                    label.name,
                    f"{thousands(label.known)} of {thousands(label.rows)}",
                    "–" if label.mean is None else f"{label.mean:.4g}",
                )
                for label in report.labels
            ],
        ),
    ]
    if report.times:
        times = report.times
        tables.append(
            (
                "Times",
                ("first", "last", "before 1990", "after tomorrow", "most common time"),
                [
                    (
                        times.first,
                        times.last,
                        thousands(times.early),
                        thousands(times.late),
                        f"{times.commonest} ({thousands(times.commonest_rows)} of {thousands(times.rows)})",
                    )
                ],
            )
        )
    return [table for table in tables if table[2]]


def _share(part: int, whole: int) -> str:
    return f"{100 * part / whole:.2f}%" if whole else "–"
