"""Files of one's own (Parquet, CSV, JSON lines), read as a mapping says."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import polars as pl

from taiji.core.errors import InputError
from taiji.core.file_state import file_state
from taiji.data.reading_report import Reading
from taiji.data.schema import Tables, positions, row_list, validate
from taiji.data.sources.cells import Cells, blank_as_null
from taiji.data.sources.column_mapping import (
    EventsMapping,
    FileMapping,
    ItemsMapping,
    LabelMapping,
    LevelsMapping,
    TimeMapping,
    Unusable,
    UsersMapping,
    read_mapping,
)
from taiji.data.sources.files import read_table
from taiji.data.sources.label_rules import Label, parse_rule
from taiji.data.sources.number_cells import as_numbers, broken
from taiji.data.sources.ratings import ids_of, with_non_clicks
from taiji.data.sources.source import Source

if TYPE_CHECKING:
    from taiji.data.settings import DataSettings

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
    reading = Reading()
    items = _items(folder, plan.items, plan.unusable, reading)
    events = _events(folder, plan.events, plan.unusable, reading)
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
        Tables(
            items, profiles, events, plan.name, plan.domain, notes, plan.events.event_columns, reading=reading.report()
        ),
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
        ("events", events, ("user_id", "item_id", "timestamp", "exposed", "click")),
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


def _items(folder: Path, plan: ItemsMapping, unusable: Unusable, reading: Reading) -> pl.DataFrame:
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
        columns[plan.price] = None
    read = _read(folder, plan, columns)
    reading.file("items", plan.file, len(read))
    cells = Cells("items", read, folder / plan.file, plan, unusable, reading)
    made = [
        read[plan.item_id].alias("item_id"),
        read[plan.title].alias("title"),
        *(blank_as_null(read[name]).alias(level) for level, name in levels.items()),
    ]
    if plan.categories:
        made += _levels(read[plan.categories.column], plan.categories)
    if plan.price:
        made.append(cells.number(plan.price, "price", least=0).alias("price"))
    items = pl.DataFrame([*made, *(read[name] for name in plan.keep)])
    return _first_rows(items, "item_id") if plan.one_per_id else items


def _first_rows(frame: pl.DataFrame, column: str) -> pl.DataFrame:
    """The first row of each id, those without one left out: what a joined table says about its items or users."""
    return frame.filter(pl.col(column).is_not_null()).unique(column, keep="first", maintain_order=True)


def _levels(values: pl.Series, plan: LevelsMapping) -> list[pl.Series]:
    """Return the levels that one column holds: a list, or text with separators."""
    lists = values if isinstance(values.dtype, pl.List) else values.cast(pl.String).str.split(plan.separator)
    return [
        blank_as_null(lists.list.get(place, null_on_oob=True).cast(pl.String)).alias(f"category_l{place + 1}")
        for place in range(plan.depth)
    ]


def _users(folder: Path, plan: UsersMapping) -> pl.DataFrame:
    read = _read(folder, plan, {plan.user_id: None, **dict.fromkeys(plan.profile, None)})
    users = pl.DataFrame([read[plan.user_id].alias("user_id"), *(read[name] for name in plan.profile)])
    return _first_rows(users, "user_id") if plan.one_per_id else users


def _events(folder: Path, plan: EventsMapping, unusable: Unusable, reading: Reading) -> pl.DataFrame:
    path = folder / plan.file
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
    columns: dict[str, str | None] = dict.fromkeys(named)
    read = _read(folder, plan, columns)
    reading.file("events", plan.file, len(read))
    cells = Cells("events", read, path, plan, unusable, reading)
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
    """Return a declared label's values as numbers; the schema checks them against the label's kind."""
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
    """Return a column with the type of its values: a CSV's text becomes numbers where every value is one (``007`` is none)."""
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
            "Times run backwards.",
            where=f"{path}, column {_time_plan(plan.timestamp).column}, {row_list(wrong)}",
            expected=f"times that never fall along the {'file' if plan.in_order == 'file' else 'rows of a user'}, as in_order: {plan.in_order} declares",
            found=f"{len(wrong):,} rows earlier than the row before",
            fix="sort the file, or leave in_order out",
        )
