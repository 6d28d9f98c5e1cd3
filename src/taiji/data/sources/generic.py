"""Files of one's own (Parquet, CSV, JSON lines), read as a mapping says."""

from __future__ import annotations

import operator
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import polars as pl

from taiji.core.errors import InputError
from taiji.core.file_state import file_state
from taiji.data.schema import SHOWN, Tables, positions, row_list, validate
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
    items, events = _items(folder, plan.items), _events(folder, plan.events)
    profiles = ids_of(events) if plan.users is None else _users(folder, plan.users)
    items, events = _same_ids(items, events, "item_id")
    profiles, events = _same_ids(profiles, events, "user_id")
    files = {
        "items": plan.items.file,
        "events": plan.events.file,
        "users": plan.users.file if plan.users else plan.events.file,
    }
    notes: tuple[str, ...] = ()
    if plan.unusable == "drop":
        items, profiles, events, notes = _usable(items, profiles, events)
    tables = validate(
        Tables(items, profiles, events, plan.name, plan.domain, notes, plan.events.event_columns),
        {name: str(folder / file) for name, file in files.items()},
    )
    return with_non_clicks(
        tables, per_row=plan.events.non_clicks if non_clicks is None else non_clicks, seed=seed, keep_users=users
    )


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
        return file_state([mapping, *(folder / file for file in sorted(named))])


def _same_ids(left: pl.DataFrame, right: pl.DataFrame, column: str) -> tuple[pl.DataFrame, pl.DataFrame]:
    if (left.schema[column] == pl.String) == (right.schema[column] == pl.String):
        return left, right
    return left.with_columns(pl.col(column).cast(pl.String)), right.with_columns(pl.col(column).cast(pl.String))


def _usable(
    items: pl.DataFrame, users: pl.DataFrame, events: pl.DataFrame
) -> tuple[pl.DataFrame, pl.DataFrame, pl.DataFrame, tuple[str, ...]]:
    """The rows that can be used, and notes that count the others."""
    notes = []
    for name, frame, columns in (
        ("items", items, ("item_id", "title")),
        ("users", users, ("user_id",)),
        ("events", events, ("user_id", "item_id", "timestamp", "click")),
    ):
        kept = frame.drop_nulls([column for column in columns if column in frame.columns])
        if len(kept) < len(frame):
            notes.append(
                f"{len(frame) - len(kept):,} of {len(frame):,} rows of {name} lack one of {', '.join(columns)} and were dropped."
            )
        items, users, events = (
            (kept if name == "items" else items),
            (kept if name == "users" else users),
            (kept if name == "events" else events),
        )
    for column, table in (("item_id", items), ("user_id", users)):
        if events.schema[column] == pl.String or events.schema[column].is_integer():
            known = events[column].is_in(table[column].cast(events.schema[column]).implode())
            if not known.all():
                notes.append(
                    f"{int((~known).sum()):,} of {len(events):,} events name an unknown {column} and were dropped."
                )
                events = events.filter(known)
    return items, users, events, tuple(notes)


def _read(folder: Path, plan: FileMapping, columns: dict[str, str | None]) -> pl.DataFrame:
    return read_table(folder / plan.file, columns, separator=plan.separator, header=plan.header, decimal=plan.decimal)


def _items(folder: Path, plan: ItemsMapping) -> pl.DataFrame:
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
    read = _read(folder, plan, columns)
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
    return _first_rows(items, "item_id") if plan.one_per_id else items


def _first_rows(frame: pl.DataFrame, column: str) -> pl.DataFrame:
    """The first row of each id, those without one left out: what a joined table says about its items or users."""
    return frame.filter(pl.col(column).is_not_null()).unique(column, keep="first", maintain_order=True)


def _blank_as_null(values: pl.Series) -> pl.Series:
    return values.str.strip_chars().replace({"": None})


def _levels(values: pl.Series, plan: LevelsMapping) -> list[pl.Series]:
    """Return the levels that one column holds: a list, or text with separators."""
    lists = values if isinstance(values.dtype, pl.List) else values.cast(pl.String).str.split(plan.separator)
    return [
        _blank_as_null(lists.list.get(place, null_on_oob=True).cast(pl.String)).alias(f"category_l{place + 1}")
        for place in range(plan.depth)
    ]


def _users(folder: Path, plan: UsersMapping) -> pl.DataFrame:
    read = _read(folder, plan, {plan.user_id: None, **dict.fromkeys(plan.profile, None)})
    users = pl.DataFrame([read[plan.user_id].alias("user_id"), *(read[name] for name in plan.profile)])
    return _first_rows(users, "user_id") if plan.one_per_id else users


def _events(folder: Path, plan: EventsMapping) -> pl.DataFrame:
    path = folder / plan.file
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
    read = _read(folder, plan, columns)
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
        delayed = [*(["conversion"] if "conversion" in labels else []), *_delayed(plan)]
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


def _delayed(plan: EventsMapping) -> list[str]:
    return [name for name, label in plan.labels.items() if label.delayed]


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
