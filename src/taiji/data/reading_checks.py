"""Check a reading report. Each finding is a sentence with counts, which `taiji init` shows and a run logs as a
warning."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from taiji.data.reading_report import Finding, ReadingReport


@dataclass(frozen=True)
class Thresholds:
    """Thresholds of the checks.

    Attributes:
        one_id: largest number of events that one id may have, as a share of all events and as a multiple of the mean
            number per id. An id is reported only if it exceeds both.
        known: smallest acceptable share of events whose id occurs in its table. A smaller share is a finding, and so is
            any near match (an id that differs from an id of the table only in spelling).
        one_instant: largest share of all events that may have the same time.
        repeated: largest share of events that may be equal to an earlier event in every column.
        least_rows: number of events below which shares are not meaningful.
    """

    one_id: tuple[float, float] = (0.05, 5.0)
    known: float = 0.95
    one_instant: float = 0.5
    repeated: float = 0.05
    least_rows: int = 20


PROFILE = "profile without time"
"""Name of the check whose finding `taiji init` replaces by its own text."""
logger = logging.getLogger(__name__)
Check = Callable[[ReadingReport, Thresholds], Iterator[Finding]]
STANDARD = Thresholds()


def findings(report: ReadingReport, thresholds: Thresholds = STANDARD) -> tuple[Finding, ...]:
    """Return the findings that a user should know about, in the order of :data:`CHECKS`."""
    return tuple(found for check in CHECKS for found in check(report, thresholds))


def warn(report: ReadingReport | None) -> None:
    """Log each finding of a report as a warning."""
    for finding in report.findings if report else ():
        logger.warning("%s", finding.text)


def _left_out(report: ReadingReport, thresholds: Thresholds) -> Iterator[Finding]:
    for file in report.files:
        for left in file.left_out:
            yield Finding(
                check="rows left out",
                found=f"{file.file} ({file.rows:,} rows): dropped {left.text}.",
                ask="Correct them in the file if they matter.",
            )


def _columns(report: ReadingReport, thresholds: Thresholds) -> Iterator[Finding]:
    for file in report.files:
        for column in file.columns:
            if column.understood < column.values:
                yield Finding(
                    check="unreadable values",
                    found=f"{file.file}: {column.text}.",
                    ask=f"Is {column.column} the right column for {column.part}?"
                    if column.understood < thresholds.known * column.values
                    else "Correct these cells in the file if they matter.",
                )


def _changes(report: ReadingReport, thresholds: Thresholds) -> Iterator[Finding]:
    for file in report.files:
        for note in file.notes:
            yield Finding(check="values changed while reading", found=f"{file.file}: {note}")


def _labels(report: ReadingReport, thresholds: Thresholds) -> Iterator[Finding]:
    for label in report.labels:
        if not label.known:
            yield Finding(
                check="label unknown",
                found=f"The label {label.name} is unknown for all {label.rows:,} events.",
                ask=f"Check the rule for {label.name} in the mapping.",
            )
        elif label.mean == 0 and label.rows >= thresholds.least_rows:
            yield Finding(
                check="label never positive",
                found=f"The label {label.name} is 0 for all {label.known:,} events for which it is known.",
                ask=f"Check the rule for {label.name} in the mapping.",
            )


def _ids(report: ReadingReport, thresholds: Thresholds) -> Iterator[Finding]:
    for match in report.ids:
        noun = match.column
        if match.near or match.rows_known < thresholds.known * match.rows:
            near = f" {match.near:,} of them differ only in spelling: {match.near_text}." if match.near else ""
            yield Finding(
                check="ids not matched",
                found=(
                    f"{match.rows - match.rows_known:,} of {match.rows:,} events have an unknown {noun}: "
                    f"{match.event_ids - match.event_ids_known:,} of {match.event_ids:,} distinct {noun}s are missing from the {match.table}."
                    + near
                ),
                ask=f"Do both files use the same ids? {match.used:,} of {match.ids:,} ids of the {match.table} occur in events.",
            )
        share, times = thresholds.one_id
        if match.busiest_rows > share * match.rows_known > 0 and match.rows_known >= thresholds.least_rows:
            mean = match.rows_known / max(1, match.used)
            if match.busiest_rows > times * mean:
                yield Finding(
                    check="one id with many events",
                    found=f"{noun} {match.busiest!r} has {match.busiest_rows:,} of {match.rows_known:,} events ({match.busiest_rows / match.rows_known:.1%}).",
                    ask="Is it a guest, a default or a test account? If so, remove its rows from the log.",
                )


def _times(report: ReadingReport, thresholds: Thresholds) -> Iterator[Finding]:
    times = report.times
    if times is None:
        return
    for count, where in ((times.early, "before 1990"), (times.late, "after tomorrow")):
        if count:
            yield Finding(
                check="times outside",
                found=f"{count:,} of {times.rows:,} events lie {where} ({times.first} to {times.last}).",
                ask="Check the unit or format of the times in the mapping, and correct or remove rows without a real time.",
            )
    if times.rows >= thresholds.least_rows and times.commonest_rows > thresholds.one_instant * times.rows:
        yield Finding(
            check="one instant",
            found=f"{times.commonest_rows:,} of {times.rows:,} events have the same time, {times.commonest}.",
            ask="Is this the time of an import? Splits and features depend on the time: choose the column with the time of each event.",
        )


def _amounts(report: ReadingReport, thresholds: Thresholds) -> Iterator[Finding]:
    for amount in report.amounts:
        if amount.negative:
            yield Finding(
                check="negative amounts",
                found=f"{amount.negative:,} of {amount.values:,} values of {amount.column} ({amount.table}) are negative.",
                ask="Are these rows returns? If so, they are not purchases: remove them, or exclude them in the rules for click and conversion.",
            )


def _repeated(report: ReadingReport, thresholds: Thresholds) -> Iterator[Finding]:
    rows = report.times.rows if report.times else 0
    if rows >= thresholds.least_rows and report.repeated > thresholds.repeated * rows:
        yield Finding(
            check="repeated events",
            found=f"{report.repeated:,} of {rows:,} events are equal to an earlier event in every column.",
            ask="Was the log written twice?",
        )


def _profile(report: ReadingReport, thresholds: Thresholds) -> Iterator[Finding]:
    if report.private:
        yield Finding(
            check="contact data",
            found=f"Prompts will show columns that look like contact data: {', '.join(report.private)}.",
            ask="Remove them from users.profile.",
        )
    if report.profile:
        yield Finding(
            check=PROFILE,
            found=f"Profile columns ({', '.join(report.profile)}) have no timestamp: for every event of the log they show the values at the time when the table was written.",
            ask="Remove from users.profile the columns that only became known later or were computed from the log itself.",
        )


CHECKS: tuple[Check, ...] = (_left_out, _columns, _changes, _labels, _ids, _times, _amounts, _repeated, _profile)
