"""Reading report: what the files of a source contain, which part of them is used, and what could not be read.

Records are frozen and can be converted to JSON (``report.model_dump(mode="json")``, ``ReadingReport.model_validate``).
A source adds records to a :class:`Reading` while it reads its files, and then puts ``reading.report()`` into
:class:`taiji.data.schema.Tables`. After validation, :func:`taiji.data.reading_survey.surveyed` adds counts and ranges
of the tables to the report, and :func:`taiji.data.reading_checks.findings` compares the report with thresholds. This
module has no heavy imports.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Literal

from pydantic import BaseModel, ConfigDict

SHOWN = 5
"""Largest number of rows and of examples in a record."""
Unit = Literal["row", "line"]
"""Unit of positions: data rows, or lines of the file, both counted from 1."""


class Record(BaseModel):
    """Base class of the records in a report."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class LeftOut(Record):
    """Rows of a file that were dropped for one reason."""

    reason: str
    rows: int
    first: tuple[int, ...] = ()
    """Positions of the first few of these rows."""
    unit: Unit = "row"
    examples: tuple[str, ...] = ()

    @property
    def text(self) -> str:
        """Count, reason, positions and examples in one clause."""
        reason = self.reason
        if self.rows == 1:
            reason = reason.replace("lines that cannot be read as rows", "line that cannot be read as a row").replace(
                "rows ", "row ", 1
            )
            reason = reason.replace("row that repeat ", "row that repeats ")
        return f"{self.rows:,} {reason}{_places(self.first, self.unit, self.rows)}{_such_as(self.examples)}"


class ColumnReading(Record):
    """Number of cells with a value in a column, and number of cells that could be read in the role of the column."""

    column: str
    part: str
    """Role of the column: a key of the mapping (``timestamp``, ``price``, ``click``) or the name of a label."""
    values: int
    understood: int
    first: tuple[int, ...] = ()
    """Positions of the first few cells that could not be read."""
    examples: tuple[str, ...] = ()
    """Distinct values that could not be read."""

    @property
    def text(self) -> str:
        """Count, column, positions and examples of the cells that could not be read."""
        wrong = self.values - self.understood
        return (
            f"{wrong:,} of {self.values:,} values of column {self.column} ({self.part}) could not be read"
            f"{_places(self.first, 'row', wrong)}{_such_as(self.examples)}"
        )


class FileReading(Record):
    """Record of how a file was read."""

    table: str
    """``events``, ``items`` or ``users``."""
    file: str
    rows: int
    """Number of rows in the file, including broken lines; number of ids if a table of items or users is read from the
    log."""
    left_out: tuple[LeftOut, ...] = ()
    columns: tuple[ColumnReading, ...] = ()
    notes: tuple[str, ...] = ()
    """Notes on values that were changed while reading, such as the spelling of ids."""

    @property
    def used(self) -> int:
        """Number of rows that are used."""
        return self.rows - sum(left.rows for left in self.left_out)


class LabelReading(Record):
    """Number of rows of a label, number of rows for which it is known, and mean of its known values."""

    name: str
    rows: int
    known: int
    mean: float | None = None


class TimeReading(Record):
    """Range of the times of the events, as ISO 8601 in UTC."""

    rows: int
    first: str
    last: str
    early: int = 0
    """Number of rows before :data:`taiji.data.reading_survey.EARLIEST`."""
    late: int = 0
    """Number of rows after tomorrow."""
    commonest: str = ""
    commonest_rows: int = 0


class IdReading(Record):
    """Comparison of the ids in the events with the ids in their table, before rows with an unknown id are dropped."""

    column: str
    """``item_id`` or ``user_id``."""
    table: str
    """``items`` or ``users``."""
    ids: int
    """Number of distinct ids in the table."""
    used: int
    """Number of these ids that occur in events."""
    event_ids: int
    """Number of distinct ids in the events."""
    event_ids_known: int
    rows: int
    """Number of events with an id."""
    rows_known: int
    near: int = 0
    """Number of unknown ids in the events that differ from an id of the table only in spelling."""
    near_examples: tuple[tuple[str, str], ...] = ()
    """Pairs of spellings: first in the events, then in the table."""

    @property
    def near_text(self) -> str:
        """First few near matches as text."""
        return ", ".join(f"{given!r} and {known!r}" for given, known in self.near_examples)

    busiest: str = ""
    """Id with the largest number of events."""
    busiest_rows: int = 0


class AmountReading(Record):
    """Number of values of a column of prices or quantities, and number of negative ones."""

    table: str
    column: str
    values: int
    negative: int


class Finding(Record):
    """Possible problem that a check found in a report, with advice."""

    check: str
    """Name of the check."""
    found: str
    """Description of the finding, with counts."""
    ask: str = ""
    """Advice on what to check or to decide."""

    @property
    def text(self) -> str:
        """Description and advice."""
        return f"{self.found} {self.ask}".strip()


class ReadingReport(Record):
    """Report on a source: how its files were read, counts and ranges of the validated tables, and findings."""

    files: tuple[FileReading, ...] = ()
    labels: tuple[LabelReading, ...] = ()
    times: TimeReading | None = None
    ids: tuple[IdReading, ...] = ()
    amounts: tuple[AmountReading, ...] = ()
    profile: tuple[str, ...] = ()
    """Columns of users that prompts may show."""
    private: tuple[str, ...] = ()
    """Columns of ``profile`` that look like contact data."""
    repeated: int = 0
    """Number of events that are equal to an earlier event in every column."""
    findings: tuple[Finding, ...] = ()


class Reading:
    """Builder of a report, used while files are read. Each table is named ``events``, ``items`` or ``users``.

    Call :meth:`left_out` only once per table and reason, and :meth:`column` only once per table, column and role.
    """

    def __init__(self) -> None:
        self._files: dict[str, FileReading] = {}
        self._ids: list[IdReading] = []

    def file(self, table: str, file: str, rows: int) -> None:
        """Add a file and the number of its rows. This must be the first call for each table."""
        self._files[table] = FileReading(table=table, file=file, rows=rows)

    def left_out(
        self,
        table: str,
        reason: str,
        places: Iterable[int],
        *,
        unit: Unit = "row",
        rows: int | None = None,
        examples: Iterable[object] = (),
    ) -> None:
        """Add rows that were dropped.

        Args:
            table: name of the table.
            reason: reason that completes "12 …", such as ``rows without an item_id``.
            places: positions of the rows, counted from 1; the first few are sufficient if ``rows`` is given.
            unit: unit of the positions.
            rows: number of rows; by default the number of positions.
            examples: examples of the contents of these rows.
        """
        numbers = list(places)
        count = len(numbers) if rows is None else rows
        if count:
            left = LeftOut(
                reason=reason, rows=count, first=tuple(numbers[:SHOWN]), unit=unit, examples=_texts(examples)
            )
            self._change(table, left_out=(*self._files[table].left_out, left))

    def column(
        self,
        table: str,
        column: str,
        part: str,
        *,
        values: int,
        understood: int,
        places: Iterable[int] = (),
        examples: Iterable[object] = (),
    ) -> None:
        """Add the number of cells of a column that could be read.

        Args:
            table: name of the table.
            column: name of the column in the file.
            part: role of the column: a key of the mapping, or the name of a label.
            values: number of cells with a value.
            understood: number of these cells that could be read.
            places: rows (counted from 1) of the cells that could not be read.
            examples: examples of the contents of these cells.
        """
        record = ColumnReading(
            column=column,
            part=part,
            values=values,
            understood=understood,
            first=tuple(list(places)[:SHOWN]),
            examples=_texts(examples),
        )
        self._change(table, columns=(*self._files[table].columns, record))

    def note(self, table: str, text: str) -> None:
        """Add a note on a change of values while reading. An empty text is ignored."""
        if text:
            self._change(table, notes=(*self._files[table].notes, text))

    def ids(self, match: IdReading) -> None:
        """Add the comparison of the ids in the events with the ids of a table."""
        self._ids.append(match)

    @property
    def tables(self) -> tuple[str, ...]:
        """Tables whose files were added."""
        return tuple(self._files)

    def report(self) -> ReadingReport:
        """Return the report on everything that was added so far."""
        return ReadingReport(files=tuple(self._files.values()), ids=tuple(self._ids))

    def _change(self, table: str, **values: object) -> None:
        self._files[table] = self._files[table].model_copy(update=values)


def _texts(examples: Iterable[object]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(str(example)[:60] for example in examples))[:SHOWN]


def _places(first: tuple[int, ...], unit: Unit, total: int) -> str:
    if not first:
        return ""
    more = f" and {total - len(first):,} more" if total > len(first) else ""
    return f" ({unit}{'' if total == 1 else 's'} {', '.join(map(str, first))}{more})"


def _such_as(examples: tuple[str, ...]) -> str:
    return f": {', '.join(repr(example) for example in examples)}" if examples else ""
