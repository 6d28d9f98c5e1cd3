"""Read a user's own files (Parquet, CSV, JSON lines, Excel) as described by a mapping."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from html import unescape
from pathlib import Path
from typing import TYPE_CHECKING, Any

import polars as pl

from taiji.core.errors import InputError
from taiji.core.file_state import file_state
from taiji.core.number_format import counted
from taiji.data.identity import alike, joined, plain, shortened
from taiji.data.item_text import DESCRIPTION
from taiji.data.reading_report import Reading
from taiji.data.reading_survey import surveyed
from taiji.data.schema import IDS, SHOWN, Tables, positions, row_list, validate
from taiji.data.sources.cells import Cells, blank_as_null
from taiji.data.sources.column_mapping import (
    EventsMapping,
    FileMapping,
    ItemsMapping,
    LabelMapping,
    LevelsMapping,
    TimeMapping,
    UsersMapping,
    read_mapping,
)
from taiji.data.sources.delimited import Broken
from taiji.data.sources.file_parts import parts_of
from taiji.data.sources.files import demand_flat, read_table
from taiji.data.sources.label_rules import Label, parse_rule
from taiji.data.sources.number_cells import as_numbers, broken
from taiji.data.sources.ratings import ids_of, with_non_clicks
from taiji.data.sources.source import Source

if TYPE_CHECKING:
    from taiji.data.settings import DataSettings


@dataclass(frozen=True)
class _Reader:
    """Reader of the files of a mapping.

    Attributes:
        folder: folder that contains the files.
        reading: report to which the reader adds numbers of rows, broken lines and notes.
        drop: True if unusable rows are dropped rather than rejected.
        log: file name of the log.
    """

    folder: Path
    reading: Reading
    drop: bool
    log: str

    def cells(self, table: str, frame: pl.DataFrame, plan: FileMapping) -> Cells:
        """Return a parser that reads the cells of a file as the mapping declares."""
        return Cells(table, frame, self.folder / plan.file, plan, "drop" if self.drop else "error", self.reading)

    def read(self, plan: FileMapping, table: str, columns: dict[str, str | None]) -> pl.DataFrame:
        """Read columns of a file, and report the number of its rows and its broken lines."""
        wrong: list[Broken] | None = [] if self.drop else None
        frame = read_table(
            self.folder / plan.file,
            columns,
            separator=plan.separator,
            header=plan.header,
            decimal=plan.decimal,
            broken=wrong,
        )
        self.reading.file(table, plan.file, len(frame) + len(wrong or ()))
        lines = wrong or ()
        shown = () if table == "users" else (line.text for line in lines)  # reports must not contain personal data
        self.reading.left_out(table, BROKEN, (line.line for line in lines), unit="line", examples=shown)
        allowed = [*getattr(plan, "keep", ()), *_column(getattr(plan, "categories", None))]
        for name in (name for name in frame.columns if name not in allowed):
            demand_flat(frame[name], self.folder / plan.file)
        return frame


EXAMPLE = 80
"""Largest number of characters of a text that are quoted whole as an example."""
ENTITY = r"&(#[0-9]{1,7}|#[xX][0-9A-Fa-f]{1,6}|[A-Za-z]{2,8}[0-9]{0,2});"
BROKEN, ROW = "lines that cannot be read as rows", "_row"
MAPPING = "mapping.yaml"
"""File name of a mapping in the folder of its files."""


class Files(Source):
    """Source that reads the files described by a mapping.

    The argument is the mapping file, the folder that contains it, or (with ``data.mapping``) the folder of the files.
    """

    takes = "FOLDER"

    @classmethod
    def recognises(cls, path: Path) -> bool:
        """Return True if the path has the suffix of a YAML file or is a folder with a ``mapping.yaml``."""
        return path.suffix.lower() in (".yaml", ".yml") or (path / MAPPING).is_file()

    def _places(self, settings: DataSettings) -> tuple[Path, Path]:
        """Return the path of the mapping and the folder of its files."""
        path = Path(self.argument).expanduser()
        if settings.mapping is None:
            mapping = path / MAPPING if (path / MAPPING).is_file() else path
            return mapping, mapping.parent
        mapping = settings.mapping.expanduser()
        if not path.exists():
            raise InputError(
                "The folder of the log is missing.",
                where=str(path),
                expected="the folder, given by data.source, that contains the files of the mapping",
                found="nothing",
                fix="check data.source, which is relative to the folder in which taiji is called",
            )
        return mapping, path if path.is_dir() else mapping.parent

    def load(self, settings: DataSettings, seed: int) -> Tables:
        """Read the files that the mapping describes.

        Ids in a CSV stay text, without surrounding spaces. Ids of the events take the spelling of their table. If the
        types of an id differ between tables, the ids become text.

        Args:
            settings: settings of the source; ``non_clicks`` overrides the number in the mapping.
            seed: random seed for sampling.

        Raises:
            InputError: the data is invalid; the message names the file, the column and the rows.
        """
        mapping, folder = self._places(settings)
        plan = read_mapping(mapping)
        reader = _Reader(folder, Reading(), drop=plan.unusable == "drop", log=plan.events.file)
        items, events = _items(reader, plan.items), _events(reader, plan.events)
        users = ids_of(events) if plan.users is None else _users(reader, plan.users)
        files = {
            "items": plan.items.file,
            "events": plan.events.file,
            "users": plan.users.file if plan.users else plan.events.file,
        }
        items, events = _joined(reader, items, events, "items", files)
        if plan.users is None:
            users, events = _own_ids(reader, events)
        else:
            users, events = _joined(reader, users, events, "users", files)
        notes: tuple[str, ...] = ()
        if reader.drop:
            items, users, events, notes = _usable(reader, items, users, events)
        tables = Tables(
            items.drop(ROW, strict=False),
            users.drop(ROW, strict=False),
            events,
            plan.name,
            plan.domain,
            notes,
            plan.events.event_columns,
            reading=reader.reading.report(),
        )
        return with_non_clicks(
            surveyed(validate(tables, {name: str(folder / file) for name, file in files.items()})),
            per_row=plan.events.non_clicks if settings.non_clicks is None else settings.non_clicks,
            seed=seed,
            keep_users=settings.users,
        )

    def state(self, settings: DataSettings) -> Any:
        """Return the state of the mapping and of its files."""
        mapping, folder = self._places(settings)
        plan = read_mapping(mapping)
        named = {part.file for part in (plan.items, plan.events, plan.users) if part is not None}
        files = {file: parts_of(folder / file) for file in sorted(named)}
        for file, parts in files.items():
            if not any(part.path.exists() for part in parts):
                raise InputError("A file is missing.", where=str(folder / file), found="nothing", fix="check the path")
        every = [part for parts in files.values() for part in parts]
        state = file_state([mapping, *(part.path for part in every)])
        values = [sorted(part.values.items()) for part in every if part.values]  # from the names of folders
        return [*state, values] if values else state


def _joined(
    reader: _Reader, table: pl.DataFrame, events: pl.DataFrame, name: str, files: Mapping[str, str]
) -> tuple[pl.DataFrame, pl.DataFrame]:
    """Return a table and the events with normalised ids, and report how well the ids match.

    Raises:
        InputError: ids of the events differ from ids of the table only in spelling, and rows must not be dropped.
    """
    column = IDS[name]
    made = joined(table[column], events[column], column, name)
    match = made.match
    reader.reading.ids(match)
    for change in (*made.changes, shortened(made.events)):
        reader.reading.note("events", change)
    if match.near and not reader.drop:
        given = [given for given, _ in match.near_examples]
        rows = positions(made.events.cast(pl.String).is_in(given))
        raise InputError(
            "Ids are spelt differently in the events and in their table.",
            where=f"{reader.folder / files['events']}, column {column}, {row_list(rows)}",
            expected=f"ids as spelt in {files[name]}: {', '.join(repr(known) for _, known in match.near_examples)}",
            found=f"{', '.join(map(repr, given))}: {match.near:,} such ids, which may or may not mean the same",
            fix="spell the ids alike in both files, or set `unusable: drop` in the mapping to drop and count such events",
        )
    return table.with_columns(made.table.alias(column)), events.with_columns(made.events.alias(column))


def _own_ids(reader: _Reader, events: pl.DataFrame) -> tuple[pl.DataFrame, pl.DataFrame]:
    """Return the users that occur in the log, and the log with normalised user ids."""
    events = events.with_columns(plain(events["user_id"]).alias("user_id"))
    reader.reading.note("events", shortened(events["user_id"]))
    if pairs := alike(events["user_id"]):
        shown = ", ".join(f"{one!r} and {other!r}" for one, other in pairs[:SHOWN])
        reader.reading.note(
            "events",
            f"{len(pairs):,} pairs of user ids differ only in spelling and are treated as different users: {shown}.",
        )
    return ids_of(events), events


def _usable(
    reader: _Reader, items: pl.DataFrame, users: pl.DataFrame, events: pl.DataFrame
) -> tuple[pl.DataFrame, pl.DataFrame, pl.DataFrame, tuple[str, ...]]:
    """Drop unusable rows, and return the remaining ones with notes on the number of dropped rows."""
    notes: list[str] = []

    def keep_usable(name: str, frame: pl.DataFrame, usable: pl.Series, reason: str, problem: str) -> pl.DataFrame:
        if usable.all():
            return frame
        places = frame.filter(~usable)[ROW]
        if name != "users" or "users" in reader.reading.tables:
            reader.reading.left_out(name, reason, (place + 1 for place in places.head(SHOWN)), rows=len(places))
        notes.append(f"{len(places):,} of {len(frame):,} {problem} and were dropped.")
        return frame.filter(usable)

    given = {"items": items, "users": users, "events": events}
    frames = {name: f if ROW in f.columns else f.with_row_index(ROW) for name, f in given.items()}
    for name, columns in (
        ("items", ("item_id", "title")),
        ("users", ("user_id",)),
        ("events", ("user_id", "item_id", "timestamp", "exposed", "click")),
    ):
        for column in columns:
            frame = frames[name]
            if column in frame.columns:
                usable = frame[column].is_not_null()
                without = f"rows without a {column}"
                frames[name] = keep_usable(name, frame, usable, without, f"rows of {name} have no {column}")
    for name, column in IDS.items():
        events, known = frames["events"], frames[name][column]
        if events.schema[column] == pl.String or events.schema[column].is_integer():
            usable = events[column].is_in(known.cast(events.schema[column]).implode())
            reason = f"rows whose {column} is missing from the {name}"
            frames["events"] = keep_usable("events", events, usable, reason, f"events have an unknown {column}")
    return frames["items"], frames["users"], frames["events"].drop(ROW), tuple(notes)


def _unique(
    reader: _Reader, frame: pl.DataFrame, column: str, plan: ItemsMapping | UsersMapping, name: str, key: str
) -> pl.DataFrame:
    """Return one row per id.

    Equal rows are merged. If rows of an id differ and the mapping sets ``one_per_id``, the first one is kept; rows
    with a title take precedence.

    Raises:
        InputError: rows of an id differ, and the mapping does not set ``one_per_id``.
    """
    rows = frame.with_columns(plain(frame[column]).alias(column)).with_row_index(ROW)
    filled = rows.filter(pl.col(column).is_not_null())
    lacks = [pl.col("title").is_null()] if "title" in frame.columns else []
    first = filled.sort(*lacks, ROW).unique(column, keep="first", maintain_order=True)[ROW]
    different = filled.unique(frame.columns, keep="first", maintain_order=True)
    differ = different.filter(~pl.col(ROW).is_in(first.implode()))
    again = filled.filter(~pl.col(ROW).is_in(different[ROW].implode()))
    ids = differ[column].unique(maintain_order=True)
    if len(ids) and not plan.one_per_id:
        raise InputError(
            f"Duplicate {name}: rows with the same id have different values.",
            where=f"{reader.folder / plan.file}, column {key}, {row_list(differ[ROW])}",
            expected="one row per id",
            found=f"{len(ids):,} repeated ids: {', '.join(repr(value) for value in ids.head(SHOWN).to_list())}",
            fix=f"keep one row per id, or set `one_per_id: true` under {name} in the mapping to use the first row of each",
        )
    if plan.file == reader.log:  # ids are naturally repeated in a log
        reader.reading.file(name, plan.file, len(first))
        if len(ids):
            note = f"{len(ids):,} distinct {column}s have rows with different values ({', '.join(map(str, ids.head(SHOWN).to_list()))}); the first row of each is used."
            reader.reading.note(name, note)
        return rows.filter(pl.col(ROW).is_in(first.implode()))
    for reason, places in (
        ("rows that repeat an earlier one", again[ROW]),
        ("rows whose id occurs in an earlier row with other values (the first row is used)", differ[ROW]),
    ):
        reader.reading.left_out(name, reason, (row + 1 for row in places.head(SHOWN)), rows=len(places))
    return rows.filter(pl.col(ROW).is_in(first.implode()) | pl.col(column).is_null())


def _items(reader: _Reader, plan: ItemsMapping) -> pl.DataFrame:
    levels = plan.category_levels
    columns: dict[str, str | None] = {
        plan.item_id: None,
        plan.title: "text",
        **dict.fromkeys(levels.values(), "text"),
        **({plan.description: "text"} if plan.description else {}),
        **dict.fromkeys(plan.keep, None),
    }
    told = [plan.description] if plan.description else []
    if plan.categories:
        columns[plan.categories.column] = None
    if plan.price:
        columns[plan.price] = None
    read = _unescaped(
        reader, reader.read(plan, "items", columns), [plan.title, *levels.values(), *told, *_column(plan.categories)]
    )
    cells = reader.cells("items", read, plan)
    made = [
        read[plan.item_id].alias("item_id"),
        blank_as_null(read[plan.title]).alias("title"),
        *(blank_as_null(read[name]).alias(level) for level, name in levels.items()),
    ]
    if plan.categories:
        made += _levels(reader, read[plan.categories.column], plan.categories)
    if plan.price:
        made.append(cells.number(plan.price, "price", least=0).alias("price"))
    made += [blank_as_null(read[name]).alias(DESCRIPTION) for name in told]
    items = pl.DataFrame([*made, *(read[name] for name in plan.keep)])
    return _unique(reader, items, "item_id", plan, "items", plan.item_id)


def _column(plan: LevelsMapping | None) -> list[str]:
    return [plan.column] if plan else []


def _unescaped(reader: _Reader, frame: pl.DataFrame, columns: list[str]) -> pl.DataFrame:
    """Decode HTML entities in texts (``H&amp;M`` to ``H&M``), and report the number of these texts."""
    for name in columns:
        values = frame[name]
        if values.dtype != pl.String or not (found := values.filter(values.str.contains(ENTITY)).unique().sort()).len():
            continue
        plain = pl.Series([unescape(text) for text in found], dtype=pl.String)
        rows = int(values.is_in(found.implode()).sum())
        reader.reading.note(
            "items",
            f"{counted(rows, 'value')} of {name} {'contains' if rows == 1 else 'contain'} HTML entities, which were decoded: "
            f"{_around(found[0])!r} is read as {unescape(_around(found[0]))!r}.",
        )
        frame = frame.with_columns(values.replace(found, plain))
    return frame


def _around(text: str) -> str:
    """Return a text, or if it is long, the part around its first HTML entity."""
    entity = re.search(ENTITY, text)
    if entity is None or len(text) <= EXAMPLE:
        return text
    return text[max(0, entity.start() - EXAMPLE // 2) : entity.end() + EXAMPLE // 2]


def _levels(reader: _Reader, values: pl.Series, plan: LevelsMapping) -> list[pl.Series]:
    """Split a column of lists, or of texts with separators, into category levels.

    In a list of lists, only the first list is read.
    """
    if isinstance(values.dtype, pl.Array):
        values = values.arr.to_list()
    lists = values if isinstance(values.dtype, pl.List) else values.cast(pl.String).str.split(plan.separator)
    while isinstance(inner := lists.dtype.inner, pl.List):  # type: ignore[attr-defined]
        several = int((lists.list.len() > 1).sum())
        if several:
            reader.reading.note(
                "items", f"{several:,} items have several lists in {plan.column}; the first one is read."
            )
        lists = lists.list.first()
    if inner.is_nested():
        raise InputError(
            "The categories cannot be read.",
            where=f"items, column {plan.column}",
            expected="texts, lists of texts, or lists of such lists",
            found=str(values.dtype),
            fix="write the names of the levels into lists, or leave out categories",
        )
    return [
        blank_as_null(lists.list.get(place, null_on_oob=True).cast(pl.String)).alias(f"category_l{place + 1}")
        for place in range(plan.depth)
    ]


def _users(reader: _Reader, plan: UsersMapping) -> pl.DataFrame:
    read = reader.read(plan, "users", {plan.user_id: None, **dict.fromkeys(plan.profile, None)})
    users = pl.DataFrame([read[plan.user_id].alias("user_id"), *(read[name] for name in plan.profile)])
    return _unique(reader, users, "user_id", plan, "users", plan.user_id)


def _events(reader: _Reader, plan: EventsMapping) -> pl.DataFrame:
    path = reader.folder / plan.file
    times = {"timestamp": _time_plan(plan.timestamp)}
    if plan.matured_at is not None:
        times["matured_at"] = _time_plan(plan.matured_at)
    rules = {
        name: parse_rule(rule)
        for name in ("exposed", "click", "conversion")
        if (rule := getattr(plan, name)) is not None
    }
    named = [
        plan.user_id,
        plan.item_id,
        *(column for time in times.values() for column in time.columns),
        *(column for rule in rules.values() for column in rule.columns),
        *(column for label in plan.labels.values() for column in label.rule.columns),
        *plan.single.values(),
        *plan.context,
        *plan.bias,
        *([plan.price] if plan.price else []),
    ]
    read = reader.read(plan, "events", dict.fromkeys(named))
    cells = reader.cells("events", read, plan)
    made: list[pl.Series] = [read[plan.user_id].alias("user_id"), read[plan.item_id].alias("item_id")]
    made += [cells.time(time, name).alias(name) for name, time in times.items()]
    made += [cells.label(rule, name).alias(name) for name, rule in rules.items()]
    if plan.price:
        made.append(cells.number(plan.price, "price", least=0).alias("price"))
    made += [_further_label(cells, label).alias(name) for name, label in plan.labels.items()]
    made += [_single(cells, column, role).alias(role) for role, column in plan.single.items()]
    made += [_values(cells, name) for name in (*plan.context, *plan.bias)]
    events = pl.DataFrame(made)
    if plan.in_order:
        _check_order(events, plan, path)
    if plan.matures_after_days is not None:
        mature = pl.col("timestamp") + pl.duration(microseconds=round(plan.matures_after_days * 86_400_000_000))
        events = events.with_columns(mature.alias("matured_at"))
        delayed = [*(["conversion"] if "conversion" in rules else []), *_delayed(plan)]
        events = events.with_columns(
            pl.when(mature <= pl.col("timestamp").max()).then(name).alias(name) for name in delayed
        )
    return events


def _time_plan(plan: TimeMapping | str) -> TimeMapping:
    return TimeMapping(column=plan) if isinstance(plan, str) else plan


def _delayed(plan: EventsMapping) -> list[str]:
    return [name for name, label in plan.labels.items() if label.delayed]


def _further_label(cells: Cells, label: LabelMapping) -> pl.Series:
    """Return the values of a declared label as numbers. Validation checks them against the kind of the label."""
    rule = label.rule
    if label.kind in ("binary", "survey") or not isinstance(rule, Label) or rule.column is None:
        return cells.label(rule, label.name)
    if label.grades:
        return cells.grades(rule.column, label.name, label.grades)
    return cells.number(rule.column, label.name, least=0 if label.kind in ("count", "duration") else None)


def _single(cells: Cells, column: str, role: str) -> pl.Series:
    if role in ("position", "propensity"):
        return cells.number(column, role)
    values = cells.frame[column]
    return blank_as_null(values) if values.dtype == pl.String else values


def _values(cells: Cells, column: str) -> pl.Series:
    """Return a column with the type of its values. Texts of a CSV become numbers if every value is a number. A
    text such as ``007`` does not count as a number."""
    values = cells.frame[column]
    if values.dtype.is_float():
        return cells.number(column, column)
    if values.dtype != pl.String:
        return values
    texts = blank_as_null(values)
    padded = texts.str.contains(r"^[+-]?0\d").any()
    numbers = as_numbers(texts, cells.form(column))
    if padded or bool(broken(texts, numbers).any()) or numbers.null_count() == len(numbers):
        return texts
    whole = texts.cast(pl.Int64, strict=False)
    return whole if whole.null_count() == numbers.null_count() else numbers


def _check_order(events: pl.DataFrame, plan: EventsMapping, path: Path) -> None:
    before = pl.col("timestamp").shift(1)
    wrong = positions(
        events.select(pl.col("timestamp") < (before.over("user_id") if plan.in_order == "user" else before)).to_series()
    )
    if len(wrong):
        raise InputError(
            "Timestamps are not in ascending order.",
            where=f"{path}, column {_time_plan(plan.timestamp).column}, {row_list(wrong)}",
            expected=f"timestamps that never decrease within {'the file' if plan.in_order == 'file' else 'the rows of a user'}, as in_order: {plan.in_order} declares",
            found=f"{len(wrong):,} rows with an earlier timestamp than the row before",
            fix="sort the file, or remove in_order from the mapping",
        )
