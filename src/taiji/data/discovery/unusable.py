"""Count the rows and cells that a proposed mapping cannot use, by reason, and find the notations of numbers."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import polars as pl

from taiji.core.errors import TaijiError
from taiji.core.number_format import counted
from taiji.core.yaml_files import yaml_line
from taiji.data.discovery.assign import Roles
from taiji.data.discovery.parts import Guess, Question
from taiji.data.discovery.table_files import Table
from taiji.data.discovery.trial import tried_cells
from taiji.data.identity import joined, plain
from taiji.data.schema import positions
from taiji.data.sources.column_mapping import TimeMapping
from taiji.data.sources.label_rules import parse_rule
from taiji.data.sources.number_cells import PLAIN

if TYPE_CHECKING:
    from taiji.data.sources.number_cells import NumberForm

SHOWN = 3


@dataclass(frozen=True)
class Unusable:
    """Summary of the rows and cells that cannot be used.

    Attributes:
        reasons: reasons with counts, as sentences.
        worst: largest share of a table's rows that is dropped for a single reason. Rows with invalid cells are not
            counted, because they are not dropped.
    """

    reasons: tuple[str, ...]
    worst: float


def unusable(guesses: Mapping[str, Guess], roles: Roles) -> Unusable:
    """Count rows without an id, a time or a click label, ids missing from their table, items without a title, and
    broken lines and cells."""
    log = roles.events
    reasons: list[str] = []
    shares = [0.0]
    for part, table in (("item_id", roles.items), ("user_id", roles.users)):
        guess, key = guesses.get(f"events.{part}"), guesses.get(f"{part[:4]}s.{part}")
        if guess is None:
            continue
        column = log.columns[str(guess.value)]
        _count_missing_ids(log, column.name, reasons, shares)
        if table is not None and key is not None and table is not log:
            _count_missing_ids(table, str(key.value), reasons, shares)
        if table is not None and key is not None and table is not log:
            match = joined(table.ids(str(key.value)), log.frame[column.name], column.name, table.path.name).match
            if orphans := match.rows - match.rows_known:
                near = (
                    f" ({match.near:,} distinct ids differ only in spelling: {match.near_text})" if match.near else ""
                )
                reasons.append(f"{orphans:,} rows have a {column.name} that does not occur in {table.path.name}{near}")
                shares.append(orphans / column.rows)
    _count_missing_titles(guesses, roles, reasons, shares)
    _count_unreadable_events(guesses, log, reasons, shares)
    for table in (log, *(other for other in (roles.items, roles.users) if other is not None and other is not log)):
        _count_broken_lines(table, reasons, shares)
    for section, table in (("items", roles.items), ("events", log)):
        if table is not None:
            reasons += _told_broken_cells(guesses, section, table)
    return Unusable(tuple(reasons), max(shares))


def _count_missing_ids(table: Table, name: str, reasons: list[str], shares: list[float]) -> None:
    """Count the rows without an id, in the same way as loading does."""
    values = table.frame[name]
    if missing := plain(values).null_count():
        reasons.append(f"{missing:,} of {len(values):,} rows of {table.path.name} have no {name}")
        shares.append(missing / len(values))


def columns_in(guess: Guess) -> set[str]:
    """Return all strings in a guess, including strings that are not column names."""
    value = guess.value
    if isinstance(value, dict):
        inner = [entry.get("column") for entry in value.values() if isinstance(entry, dict)]
        texts: list[Any] = [*value, *inner]
    else:
        texts = list(value) if isinstance(value, tuple) else [value]
    return {text for text in (*texts, guess.column) if isinstance(text, str)}


def number_forms_of(guesses: Mapping[str, Guess], section: str, table: Table) -> dict[str, NumberForm]:
    """Return the number notation of each numeric column that has a role, by column name.

    Columns in :data:`PLAIN` notation are omitted.
    """
    return {
        name: table.columns[name].understood.form
        for name in _numbers(guesses, section, table)
        if table.columns[name].understood.form != PLAIN
    }


def open_numbers(guesses: Mapping[str, Guess], roles: Roles) -> list[Question]:
    """Return questions about the notation of numbers in columns where every cell is ambiguous (``1.000``)."""
    questions = []
    for section, table in (("items", roles.items or roles.events), ("events", roles.events)):
        if f"{section}.numbers" in guesses:
            continue
        doubtful = [name for name in _numbers(guesses, section, table) if len(table.columns[name].understood.forms) > 1]
        if doubtful:
            forms = dict.fromkeys(form for name in doubtful for form in table.columns[name].understood.forms)
            choices = tuple(Guess(yaml_line(dict.fromkeys(doubtful, form)), 0.5, (f"as in {form}",)) for form in forms)
            shown = "; ".join(f"{name}: {', '.join(table.columns[name].examples[:3])}" for name in doubtful)
            questions.append(
                Question(f"{section}.numbers", f"how numbers are written in {table.path.name} ({shown})", choices)
            )
    return questions


def _numbers(guesses: Mapping[str, Guess], section: str, table: Table) -> list[str]:
    """Return the columns that a section of the mapping reads as numbers."""
    read: dict[str, None] = {}
    for key, guess in guesses.items():
        part = key.partition(".")[2]
        if not key.startswith(f"{section}.") or part in ("user_id", "item_id", "title") or part.startswith("timestamp"):
            continue
        named = set(_rule_columns(guess.value)) if part in ("click", "conversion", "exposed") else columns_in(guess)
        read |= dict.fromkeys(sorted(named))
    return [
        name for name in read if name in table.columns and table.columns[name].understood.kind in ("integer", "number")
    ]


def _rule_columns(rule: Any) -> tuple[str, ...]:
    try:
        return parse_rule(rule).columns
    except ValueError:  # an invalid answer, which the validation of the mapping rejects
        return ()


def _count_missing_titles(guesses: Mapping[str, Guess], roles: Roles, reasons: list[str], shares: list[float]) -> None:
    title, table = guesses.get("items.title"), roles.items
    if title is None or table is None or table is roles.events:
        return
    column = table.columns[str(title.value)]
    if empty := column.rows - column.present:
        reasons.append(f"{empty:,} rows of {table.path.name} have no {title.value}")
        shares.append(empty / column.rows)


def _count_broken_lines(table: Table, reasons: list[str], shares: list[float]) -> None:
    if table.broken:
        first = table.broken[0]
        reasons.append(
            f"{counted(len(table.broken), 'line')} of {table.path.name} cannot be read as rows (line {first.line}: {first.found}: {first.text!r})"
        )
        shares.append(len(table.broken) / (len(table.frame) + len(table.broken)))


def _count_unreadable_events(guesses: Mapping[str, Guess], log: Table, reasons: list[str], shares: list[float]) -> None:
    """Count the rows whose time or click label cannot be read, using the code that reads the file."""
    cells = tried_cells(log)
    time, click = guesses.get("events.timestamp"), guesses.get("events.click")
    try:
        if time is not None:
            plan = {
                key.rpartition(".")[2]: guess.value
                for key, guess in guesses.items()
                if key.startswith("events.timestamp.")
            }
            if isinstance(time.value, str):
                missing = cells.time(TimeMapping(column=time.value, **plan), "timestamp").is_null()
                _count(log, missing, f"no time in {time.value}", [time.value], reasons, shares)
        if click is not None:
            rule = parse_rule(click.value)
            if columns := [name for name in rule.columns if name in log.columns]:
                missing = cells.label(rule, "click").is_null()
                _count(log, missing, "no label for click", columns, reasons, shares)
    except (TaijiError, ValueError, pl.exceptions.PolarsError):
        return  # loading the whole file reports the error with its position


def _count(
    log: Table, missing: pl.Series, what: str, columns: list[str], reasons: list[str], shares: list[float]
) -> None:
    rows = positions(missing)
    if len(rows):
        shown = ", ".join(
            f"row {int(row) + 1}: {', '.join(repr(log.frame[name][int(row)]) for name in columns)}"
            for row in rows[:SHOWN]
        )
        reasons.append(f"{len(rows):,} of {len(missing):,} rows have {what} ({shown})")
        shares.append(len(rows) / len(missing))


def _told_broken_cells(guesses: Mapping[str, Guess], section: str, table: Table) -> list[str]:
    """Describe cells of numeric columns that are not numbers, and negative prices."""
    found = []
    price = guesses.get(f"{section}.price")
    for name in _numbers(guesses, section, table):
        column = table.columns[name].understood
        if column.broken:
            found.append(f"{table.path.name}: {column.told_broken()}")
        if column.negative and price is not None and price.value == name:
            found.append(
                f"{table.path.name}: {column.negative:,} values of {name} are negative, which a price cannot be"
            )
    return found
