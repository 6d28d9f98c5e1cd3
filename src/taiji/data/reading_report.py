"""Reading report: the account of what a source's files held, what was used of it, and what was not understood.

Records are frozen and JSON-able (``report.model_dump(mode="json")``, ``ReadingReport.model_validate``). A reader passes one
:class:`Reading` along, tells it what it met, and puts ``reading.report()`` into :class:`taiji.data.schema.Tables`;
:func:`taiji.data.reading_survey.surveyed` adds what the checked tables show, and
:func:`taiji.data.reading_checks.findings` compares it with thresholds. Free of heavy imports.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Literal

from pydantic import BaseModel, ConfigDict

SHOWN = 5
"""Rows and examples that a record keeps of each kind."""
Unit = Literal["row", "line"]
"""Rows count data rows from 1, lines count lines of the file from 1."""


class Record(BaseModel):
    """Base of the report's records."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class LeftOut(Record):
    """Rows of a file that were left out for one reason."""

    reason: str
    rows: int
    first: tuple[int, ...] = ()
    """Numbers of the first few."""
    unit: Unit = "row"
    examples: tuple[str, ...] = ()

    @property
    def text(self) -> str:
        """Count, reason, places and examples in one clause."""
        reason = self.reason
        if self.rows == 1:
            reason = reason.replace("lines that are no rows", "line that is no row").replace("rows ", "row ", 1)
            reason = reason.replace("row that repeat ", "row that repeats ")
        return f"{self.rows:,} {reason}{_places(self.first, self.unit, self.rows)}{_such_as(self.examples)}"


class ColumnReading(Record):
    """Cells of a column that hold something, and how many of them were understood as the part that the column plays."""

    column: str
    part: str
    """Key of the mapping (``timestamp``, ``price``, ``click``) or a label's name."""
    values: int
    understood: int
    first: tuple[int, ...] = ()
    """Rows of the first few that were not understood."""
    examples: tuple[str, ...] = ()
    """Different values that were not understood."""

    @property
    def text(self) -> str:
        """Count, column, places and examples of what was not understood."""
        wrong = self.values - self.understood
        return (
            f"{wrong:,} of {self.values:,} values of column {self.column} ({self.part}) were not understood"
            f"{_places(self.first, 'row', wrong)}{_such_as(self.examples)}"
        )


class FileReading(Record):
    """A file as it was read."""

    table: str
    """``events``, ``items`` or ``users``."""
    file: str
    rows: int
    """Rows in the file, broken lines included."""
    left_out: tuple[LeftOut, ...] = ()
    columns: tuple[ColumnReading, ...] = ()
    notes: tuple[str, ...] = ()
    """Changes that were made to what is written in the file, such as another spelling of ids."""

    @property
    def used(self) -> int:
        """Return the rows that were used."""
        return self.rows - sum(left.rows for left in self.left_out)


class LabelReading(Record):
    """A label's rows, those on which it is known, and the mean of its known values (the rate of a label of 0 and 1)."""

    name: str
    rows: int
    known: int
    mean: float | None = None


class TimeReading(Record):
    """Times of the events, as ISO 8601 in UTC."""

    rows: int
    first: str
    last: str
    early: int = 0
    """Rows before :data:`taiji.data.reading_survey.EARLIEST`."""
    late: int = 0
    """Rows after tomorrow."""
    commonest: str = ""
    commonest_rows: int = 0


class IdReading(Record):
    """Ids of the events against those of their table, before rows with an unknown id were left out."""

    column: str
    """``item_id`` or ``user_id``."""
    table: str
    """``items`` or ``users``."""
    ids: int
    """Different ids of the table."""
    used: int
    """Of these, those that events name."""
    event_ids: int
    """Different ids that events name."""
    event_ids_known: int
    rows: int
    """Events with an id."""
    rows_known: int
    near: int = 0
    """Unknown ids of events that differ from an id of the table only in spelling."""
    near_examples: tuple[tuple[str, str], ...] = ()
    """(as events write it, as the table writes it)."""

    @property
    def near_text(self) -> str:
        """Return the first few near matches in words."""
        return ", ".join(f"{given!r} and {known!r}" for given, known in self.near_examples)

    busiest: str = ""
    """Id with the most events."""
    busiest_rows: int = 0


class AmountReading(Record):
    """Prices or quantities: how many values there are, and how many of them are negative."""

    table: str
    column: str
    values: int
    negative: int


class Finding(Record):
    """A check that a report did not pass."""

    check: str
    """Name of the check."""
    found: str
    """Finding, with counts."""
    ask: str = ""
    """Advice: what a person should look at or decide, and how."""

    @property
    def text(self) -> str:
        """Return both in one."""
        return f"{self.found} {self.ask}".strip()


class ReadingReport(Record):
    """Account of a source: its files, what the checked tables show, and what deserves a look."""

    files: tuple[FileReading, ...] = ()
    labels: tuple[LabelReading, ...] = ()
    times: TimeReading | None = None
    ids: tuple[IdReading, ...] = ()
    amounts: tuple[AmountReading, ...] = ()
    profile: tuple[str, ...] = ()
    """User columns that prompts may tell."""
    private: tuple[str, ...] = ()
    """Those of them that look like contact data."""
    repeated: int = 0
    """Events that repeat another one in every column."""
    findings: tuple[Finding, ...] = ()


class Reading:
    """Collects a report while files are read; tables are ``events``, ``items``, ``users``.

    Counts of one kind (same table and reason, same table and column) may be told once only.
    """

    def __init__(self) -> None:
        self._files: dict[str, FileReading] = {}
        self._ids: list[IdReading] = []

    def file(self, table: str, file: str, rows: int) -> None:
        """Tell a file and its rows; comes first for each table."""
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
        """Tell rows that were left out.

        Args:
            table: the table.
            reason: continues "12 …": ``rows without an item_id``.
            places: numbers of the rows, counted from 1; of many, the first few are enough.
            unit: unit of the places.
            rows: how many there are; by default as many as there are places.
            examples: examples of what is written there.
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
        """Tell how far a column was understood.

        Args:
            table: the table.
            column: its name in the file.
            part: what it was read as: a key of the mapping, or a label's name.
            values: cells that hold something.
            understood: those of them that were understood.
            places: rows (counted from 1) that were not.
            examples: examples of what is written there.
        """
        told = ColumnReading(
            column=column,
            part=part,
            values=values,
            understood=understood,
            first=tuple(list(places)[:SHOWN]),
            examples=_texts(examples),
        )
        self._change(table, columns=(*self._files[table].columns, told))

    def note(self, table: str, text: str) -> None:
        """Tell a change that was made to what the file says; an empty text tells nothing."""
        if text:
            self._change(table, notes=(*self._files[table].notes, text))

    def ids(self, match: IdReading) -> None:
        """Tell how the events' ids fit those of a table."""
        self._ids.append(match)

    @property
    def tables(self) -> tuple[str, ...]:
        """Return the tables whose files were told."""
        return tuple(self._files)

    def report(self) -> ReadingReport:
        """Return the report so far."""
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
