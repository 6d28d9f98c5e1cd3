"""Files of one's own (Parquet, CSV, JSON lines), read as a mapping says."""

from __future__ import annotations

import operator
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import polars as pl

from taiji.core.errors import InputError
from taiji.core.file_state import file_state
from taiji.data.identity import alike, joined, plain, shortened
from taiji.data.reading_report import Reading
from taiji.data.reading_survey import surveyed
from taiji.data.schema import IDS, SHOWN, Tables, positions, row_list, validate
from taiji.data.sources.column_mapping import (
    EventsMapping,
    FileMapping,
    ItemsMapping,
    Label,
    LabelMapping,
    LevelsMapping,
    TimeMapping,
    UsersMapping,
    read_mapping,
)
from taiji.data.sources.delimited import Broken
from taiji.data.sources.file_parts import parts_of
from taiji.data.sources.files import converted, read_table
from taiji.data.sources.ratings import ids_of, with_non_clicks
from taiji.data.sources.source import Source

if TYPE_CHECKING:
    from taiji.data.settings import DataSettings

SIGNS: dict[str, Callable[[Any, Any], Any]] = {
    ">=": operator.ge,
    "<=": operator.le,
    "==": operator.eq,
    "!=": operator.ne,
    ">": operator.gt,
    "<": operator.lt,
}
TRUTH = {"true": 1, "false": 0, "yes": 1, "no": 0}


def load(
    mapping: Path, folder: Path | None = None, *, seed: int = 0, users: int | None = None, non_clicks: int | None = None
) -> Tables:
    """Read the files that a mapping describes.

    Ids in a CSV stay exactly as written; where tables disagree on an id's type all become text.

    Args:
        mapping: the YAML file.
        folder: where the files lie; by default beside the mapping.
        seed: of the samples.
        users: keep a sample of this many users.
        non_clicks: to sample beside each click, instead of the mapping's number.

    Raises:
        InputError: naming the file, column and rows at fault.
    """
    plan = read_mapping(mapping)
    folder = mapping.parent if folder is None else folder
    reader = _Reader(folder, Reading(), drop=plan.unusable == "drop", log=plan.events.file)
    items, events = _items(reader, plan.items), _events(reader, plan.events)
    profiles = ids_of(events) if plan.users is None else _users(reader, plan.users)
    files = {
        "items": plan.items.file,
        "events": plan.events.file,
        "users": plan.users.file if plan.users else plan.events.file,
    }
    items, events = _joined(reader, items, events, "items", files)
    if plan.users is None:
        profiles, events = _own_ids(reader, events)
    else:
        profiles, events = _joined(reader, profiles, events, "users", files)
    notes: tuple[str, ...] = ()
    if reader.drop:
        items, profiles, events, notes = _usable(reader, items, profiles, events)
    tables = validate(
        Tables(
            items.drop(ROW, strict=False),
            profiles.drop(ROW, strict=False),
            events,
            plan.name,
            plan.domain,
            notes,
            plan.events.event_columns,
            reading=reader.reading.report(),
        ),
        {name: str(folder / file) for name, file in files.items()},
    )
    return with_non_clicks(
        surveyed(tables),
        per_row=plan.events.non_clicks if non_clicks is None else non_clicks,
        seed=seed,
        keep_users=users,
    )


@dataclass(frozen=True)
class _Reader:
    """Where the files lie, what is told of them, and whether rows that cannot be used are left out."""

    folder: Path
    reading: Reading
    drop: bool
    log: str

    def read(self, plan: FileMapping, table: str, columns: dict[str, str | None]) -> pl.DataFrame:
        """Return columns of a file, and tell its rows and broken lines."""
        broken: list[Broken] | None = [] if self.drop else None
        frame = read_table(
            self.folder / plan.file,
            columns,
            separator=plan.separator,
            header=plan.header,
            decimal=plan.decimal,
            broken=broken,
        )
        self.reading.file(table, plan.file, len(frame) + len(broken or ()))
        lines = broken or ()
        shown = () if table == "users" else (line.text for line in lines)  # lines about people stay out of reports
        self.reading.left_out(table, BROKEN, (line.line for line in lines), unit="line", examples=shown)
        return frame


BROKEN, ROW = "lines that are no rows", "_row"
MAPPING = "mapping.yaml"
"""The mapping's name in a folder that brings its own."""


class Files(Source):
    """Files that a mapping describes: the mapping itself, a folder that holds one, or a folder and a mapping elsewhere."""

    takes = "FOLDER"

    @classmethod
    def recognises(cls, path: Path) -> bool:
        """See :meth:`taiji.data.sources.source.Source.recognises`."""
        return path.suffix.lower() in (".yaml", ".yml") or (path / MAPPING).is_file()

    def _places(self, settings: DataSettings) -> tuple[Path, Path]:
        """Return the mapping and the folder in which its files lie."""
        path = Path(self.argument).expanduser()
        if settings.mapping is None:
            mapping = path / MAPPING if (path / MAPPING).is_file() else path
            return mapping, mapping.parent
        mapping = settings.mapping.expanduser()
        return mapping, path if path.is_dir() else mapping.parent

    def load(self, settings: DataSettings, seed: int) -> Tables:
        """See :func:`load`."""
        mapping, folder = self._places(settings)
        return load(mapping, folder, seed=seed, users=settings.users, non_clicks=settings.non_clicks)

    def state(self, settings: DataSettings) -> Any:
        """Return the state of the mapping and of the files that it names."""
        mapping, folder = self._places(settings)
        plan = read_mapping(mapping)
        named = {part.file for part in (plan.items, plan.events, plan.users) if part is not None}
        return file_state([mapping, *(part.path for file in sorted(named) for part in parts_of(folder / file))])


def _joined(
    reader: _Reader, table: pl.DataFrame, events: pl.DataFrame, name: str, files: Mapping[str, str]
) -> tuple[pl.DataFrame, pl.DataFrame]:
    """Bring the ids of a table and of the events to one form, and tell how they fit.

    Raises:
        InputError: events name ids that differ from the table's only in spelling, and rows are not to be left out.
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
            "Events write ids otherwise than their table.",
            where=f"{reader.folder / files['events']}, column {column}, {row_list(rows)}",
            expected=f"ids as {files[name]} writes them: {', '.join(repr(known) for _, known in match.near_examples)}",
            found=f"{', '.join(map(repr, given))}: {match.near:,} different ids like these, in a log where they may mean others",
            fix="write them alike in both files, or leave such events out and have them counted: `unusable: drop` in the mapping",
        )
    return table.with_columns(made.table.alias(column)), events.with_columns(made.events.alias(column))


def _own_ids(reader: _Reader, events: pl.DataFrame) -> tuple[pl.DataFrame, pl.DataFrame]:
    """Return the users that a log names, and the log with their ids in one form."""
    events = events.with_columns(plain(events["user_id"]).alias("user_id"))
    reader.reading.note("events", shortened(events["user_id"]))
    if pairs := alike(events["user_id"]):
        shown = ", ".join(f"{one!r} and {other!r}" for one, other in pairs[:SHOWN])
        reader.reading.note(
            "events", f"{len(pairs):,} pairs of user ids differ only in spelling and were kept apart: {shown}."
        )
    return ids_of(events), events


def _usable(
    reader: _Reader, items: pl.DataFrame, users: pl.DataFrame, events: pl.DataFrame
) -> tuple[pl.DataFrame, pl.DataFrame, pl.DataFrame, tuple[str, ...]]:
    """Return the rows that can be used, and notes that count the others."""
    notes: list[str] = []

    def kept(name: str, frame: pl.DataFrame, usable: pl.Series, reason: str, said: str) -> pl.DataFrame:
        if usable.all():
            return frame
        places = frame.filter(~usable)[ROW]
        if name != "users" or "users" in reader.reading.tables:
            reader.reading.left_out(name, reason, (place + 1 for place in places.head(SHOWN)), rows=len(places))
        notes.append(f"{len(places):,} of {len(frame):,} {said} and were dropped.")
        return frame.filter(usable)

    given = {"items": items, "users": users, "events": events}
    frames = {name: f if ROW in f.columns else f.with_row_index(ROW) for name, f in given.items()}
    for name, columns in (
        ("items", ("item_id", "title")),
        ("users", ("user_id",)),
        ("events", ("user_id", "item_id", "timestamp", "click")),
    ):
        for column in columns:
            frame = frames[name]
            if column in frame.columns:
                usable = frame[column].is_not_null()
                without = f"rows without a {column}"
                frames[name] = kept(name, frame, usable, without, f"rows of {name} lack a {column}")
    for name, column in IDS.items():
        events, known = frames["events"], frames[name][column]
        if events.schema[column] == pl.String or events.schema[column].is_integer():
            usable = events[column].is_in(known.cast(events.schema[column]).implode())
            reason = f"rows whose {column} the {name} do not have"
            frames["events"] = kept("events", events, usable, reason, f"events name an unknown {column}")
    return frames["items"], frames["users"], frames["events"].drop(ROW), tuple(notes)


def _unique(
    reader: _Reader, frame: pl.DataFrame, column: str, plan: ItemsMapping | UsersMapping, name: str, key: str
) -> pl.DataFrame:
    """Return one row of each id: of rows that say the same one is kept, of rows that differ the first (with a title), if the mapping says so.

    Raises:
        InputError: rows of one id differ, and the mapping does not say that the first one counts.
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
            f"Duplicate {name}: rows with the same id differ.",
            where=f"{reader.folder / plan.file}, column {key}, {row_list(differ[ROW])}",
            expected="every id once",
            found=f"{len(ids):,} ids again: {', '.join(repr(value) for value in ids.head(SHOWN).to_list())}",
            fix=f"keep one row of each, or let the first one count: `one_per_id: true` under {name} in the mapping",
        )
    if plan.file == reader.log:  # the log itself repeats its ids
        reader.reading.file(name, plan.file, len(first))
        if len(ids):
            said = f"{len(ids):,} different {column}s have rows that say different things about them ({', '.join(map(str, ids.head(SHOWN).to_list()))}); the first row of each counts."
            reader.reading.note(name, said)
        return rows.filter(pl.col(ROW).is_in(first.implode()))
    for reason, places in (
        ("rows that repeat another one", again[ROW]),
        ("rows whose id an earlier row has, with other values: the first one counts", differ[ROW]),
    ):
        reader.reading.left_out(name, reason, (row + 1 for row in places.head(SHOWN)), rows=len(places))
    return rows.filter(pl.col(ROW).is_in(first.implode()) | pl.col(column).is_null())


def _items(reader: _Reader, plan: ItemsMapping) -> pl.DataFrame:
    levels = plan.category_levels
    columns: dict[str, str | None] = {
        plan.item_id: None,
        plan.title: "text",
        **dict.fromkeys(levels.values(), "text"),
        **dict.fromkeys(plan.keep, None),
    }
    if plan.categories:
        columns[plan.categories.column] = None
    if plan.price:
        columns[plan.price] = "number"
    read = reader.read(plan, "items", columns)
    made = [
        read[plan.item_id].alias("item_id"),
        read[plan.title].alias("title"),
        *(_blank_as_null(read[name]).alias(level) for level, name in levels.items()),
    ]
    if plan.categories:
        made += _levels(read[plan.categories.column], plan.categories)
    if plan.price:
        made.append(read[plan.price].alias("price"))
    items = pl.DataFrame([*made, *(read[name] for name in plan.keep)])
    return _unique(reader, items, "item_id", plan, "items", plan.item_id)


def _blank_as_null(values: pl.Series) -> pl.Series:
    return values.str.strip_chars().replace({"": None})


def _levels(values: pl.Series, plan: LevelsMapping) -> list[pl.Series]:
    """Return the levels that one column holds: a list, or text with separators."""
    lists = values if isinstance(values.dtype, pl.List) else values.cast(pl.String).str.split(plan.separator)
    return [
        _blank_as_null(lists.list.get(place, null_on_oob=True).cast(pl.String)).alias(f"category_l{place + 1}")
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
    labels = {
        name: Label.parse(rule)
        for name in ("exposed", "click", "conversion")
        if (rule := getattr(plan, name)) is not None
    }
    columns: dict[str, str | None] = dict.fromkeys(
        [
            plan.user_id,
            plan.item_id,
            *(time.column for time in times.values()),
            *(rule.column for rule in labels.values() if rule.column),
            *(label.rule.column for label in plan.labels.values() if label.rule.column),
            *plan.single.values(),
            *plan.context,
            *plan.bias,
        ]
    )
    if plan.price:
        columns[plan.price] = "number"
    read = reader.read(plan, "events", columns)
    made: list[Any] = [read[plan.user_id].alias("user_id"), read[plan.item_id].alias("item_id")]
    made += [_time(read[time.column], time, path).alias(name) for name, time in times.items()]
    made += [_label(read, rule, path, plan.decimal).alias(name) for name, rule in labels.items()]
    if plan.price:
        made.append(read[plan.price].alias("price"))
    made += [_further_label(read, label, path, plan.decimal).alias(name) for name, label in plan.labels.items()]
    made += [_single(read[column], role, path, plan.decimal).alias(role) for role, column in plan.single.items()]
    made += [_values(read[name], plan.decimal) for name in (*plan.context, *plan.bias)]
    events = pl.DataFrame(made)
    if plan.in_order:
        _check_order(events, plan, path)
    if plan.matures_after_days is not None:
        mature = pl.col("timestamp") + pl.duration(microseconds=round(plan.matures_after_days * 86_400_000_000))
        events = events.with_columns(mature.alias("matured_at"))
        delayed = [
            *(["conversion"] if "conversion" in labels else []),
            *(n for n, label in plan.labels.items() if label.delayed),
        ]
        events = events.with_columns(
            pl.when(mature <= pl.col("timestamp").max()).then(name).alias(name) for name in delayed
        )
    return events


def _time_plan(plan: TimeMapping | str) -> TimeMapping:
    return TimeMapping(column=plan) if isinstance(plan, str) else plan


def _time(values: pl.Series, plan: TimeMapping, path: Path) -> pl.Series:
    """A column as times; what does not fit is an error with its rows."""
    if plan.unit != "text":
        numbers = converted(values, "integer", path)
        return (
            (numbers // 1000).cast(pl.Datetime("us"))
            if plan.unit == "ns"
            else pl.select(pl.from_epoch(numbers.cast(pl.Int64), time_unit=plan.unit))
            .to_series()
            .cast(pl.Datetime("us"))
        )
    if plan.format and values.dtype.is_integer():
        values = values.cast(pl.String)  # 20241231
    if values.dtype != pl.String:
        return values  # date-times as such; the schema's check tells what else it is
    texts = _blank_as_null(values)
    try:
        times = texts.str.to_datetime(plan.format, strict=False, time_unit="us")
    except pl.exceptions.PolarsError:  # no format could be guessed from the first values
        times = pl.Series(values.name, [None] * len(values), pl.Datetime("us"))
    wrong = positions(times.is_null() & texts.is_not_null())
    if len(wrong):
        raise InputError(
            "A time is not what it should be.",
            where=f"{path}, column {values.name}, {row_list(wrong)}",
            expected=f"dates written as {plan.format or '2024-12-31 23:59:59 (ISO 8601)'}",
            found=", ".join(repr(text) for text in texts.gather(wrong[:SHOWN]).to_list()),
            fix="give the column's unit (s, ms, us, ns) or format in the mapping, or correct these rows",
        )
    return times


def _label(read: pl.DataFrame, rule: Label, path: Path, decimal: str = ".") -> pl.Series:
    """A label of 0/1 (null where its column is) by the rule."""
    if rule.column is None:
        return pl.repeat(int(float(rule.value or 0)), len(read), dtype=pl.Int8, eager=True)
    values = read[rule.column]
    if rule.sign is None:
        if values.dtype == pl.String:
            lowered = values.str.strip_chars().str.to_lowercase()
            values = lowered.replace({text: str(number) for text, number in TRUTH.items()}).alias(rule.column)
        return values if values.dtype == pl.Boolean else converted(values, "integer", path)
    left = (
        _blank_as_null(values.cast(pl.String))
        if isinstance(rule.value, str)
        else converted(values, "number", path, decimal)
    )
    return SIGNS[rule.sign](left, rule.value).cast(pl.Int8)


def _further_label(read: pl.DataFrame, label: LabelMapping, path: Path, decimal: str) -> pl.Series:
    """Return a declared label's values as numbers; the schema checks them against the label's kind."""
    rule = label.rule
    if rule.column is None or rule.sign is not None:
        return _label(read, rule, path, decimal)
    values = read[rule.column]
    if label.grades:
        return _grades(values, label.grades, path, decimal)
    if values.dtype == pl.String and label.kind in ("binary", "survey"):
        lowered = values.str.strip_chars().str.to_lowercase()
        values = lowered.replace({text: str(number) for text, number in TRUTH.items()}).alias(rule.column)
    return converted(values, "number", path, decimal)


def _grades(values: pl.Series, grades: tuple[float | str, ...], path: Path, decimal: str) -> pl.Series:
    """Return each value's place among the grades."""
    texts = [grade if isinstance(grade, str) else f"{grade:g}" for grade in grades]
    if any(isinstance(grade, str) for grade in grades):
        named: list[Any] = list(texts)
        given = _blank_as_null(values.cast(pl.String))
    else:
        named = list(grades)
        given = converted(values, "number", path, decimal)
    found = given.replace_strict(named, list(range(len(named))), default=None, return_dtype=pl.Int64)
    wrong = positions(found.is_null() & given.is_not_null())
    if len(wrong):
        raise InputError(
            "A grade is not among those of the mapping.",
            where=f"{path}, column {values.name}, {row_list(wrong)}",
            expected=f"one of {', '.join(texts)}",
            found=", ".join(repr(value) for value in values.gather(wrong[:SHOWN]).to_list()),
            fix="add it to the label's grades at its place, or correct these rows",
        )
    return found


def _single(values: pl.Series, role: str, path: Path, decimal: str) -> pl.Series:
    if role in ("position", "propensity"):
        return converted(values, "number", path, decimal)
    return _blank_as_null(values) if values.dtype == pl.String else values


def _values(values: pl.Series, decimal: str) -> pl.Series:
    """Return a column with the type of its values: a CSV's text becomes numbers where every value is one (``007`` is none)."""
    if values.dtype != pl.String:
        return values
    texts = _blank_as_null(values)
    plain = texts.str.replace(",", ".", literal=True) if decimal == "," else texts
    padded = plain.str.contains(r"^[+-]?0\d").any()
    for kind in (pl.Int64, pl.Float64):
        numbers = plain.cast(kind, strict=False)
        if not padded and numbers.null_count() == texts.null_count() < len(texts):
            return numbers
    return texts


def _check_order(events: pl.DataFrame, plan: EventsMapping, path: Path) -> None:
    before = pl.col("timestamp").shift(1)
    wrong = positions(
        events.select(pl.col("timestamp") < (before.over("user_id") if plan.in_order == "user" else before)).to_series()
    )
    if len(wrong):
        raise InputError(
            "Times run backwards.",
            where=f"{path}, column {_time_plan(plan.timestamp).column}, {row_list(wrong)}",
            expected=f"times that never fall along the {'file' if plan.in_order == 'file' else 'rows of a user'}, as in_order: {plan.in_order} declares",
            found=f"{len(wrong):,} rows earlier than the row before",
            fix="sort the file, or leave in_order out",
        )
