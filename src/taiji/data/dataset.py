"""In-memory dataset with dense ids, events sorted by time, and histories."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import polars as pl

from taiji.core.artifacts import atomic_folder, read_json, write_json, write_parquet
from taiji.core.errors import ArtifactError
from taiji.data.arrays import store_arrays
from taiji.data.event_columns import NO_COLUMNS, EventColumns
from taiji.data.history import History, Prices
from taiji.data.reading_report import ReadingReport
from taiji.data.schema import Tables, dense, level_names, validate
from taiji.data.tasks import Task

FORMAT = 2
READABLE = (1, FORMAT)
"""Formats that can be read. Format 1 is format 2 without further event columns and category levels."""
FRAMES = ("items", "users", "events")
READING = "reading.json"
"""File name of the reading report, if the dataset has one."""


@dataclass(frozen=True, eq=False)
class Dataset:
    """Validated tables with dense integer ids. Times are microseconds since the epoch (int64).

    Attributes:
        items: row i is item i: ``item`` (u32), ``item_id``, ``title``, ``category_l1``, ``category_l2``, …, ``price``,
            further columns.
        users: row u is user u: ``user`` (u32), ``user_id``, profile columns.
        events: sorted by (time, user, input order): ``event`` (row number, u32), ``user``, ``item`` (u32), ``time``
            (i64), ``exposed`` (bool), ``click`` (i8), ``conversion`` (i8 or null), ``matured_at`` (i64), ``price``,
            and the further columns in the order of ``event_columns``.
        name: name of the dataset.
        domain: domain of the items, which determines the wording of prompts.
        notes: notes on how the tables were made, which the report shows.
        event_columns: roles of the further columns of events.
        given_levels: category columns that the source provides; None means all category columns of ``items``. Read them
            through :attr:`levels`.
        reading: report on the contents of the source and how they were used; None if the dataset was not read from a
            source.
    """

    items: pl.DataFrame
    users: pl.DataFrame
    events: pl.DataFrame
    name: str
    domain: str
    notes: tuple[str, ...] = ()
    event_columns: EventColumns = NO_COLUMNS
    given_levels: tuple[str, ...] | None = None
    reading: ReadingReport | None = None

    @classmethod
    def from_tables(cls, tables: Tables) -> Dataset:
        """Validate tables, and number their users and items by row.

        Raises:
            InputError: the tables are invalid; see :func:`taiji.data.schema.validate`.
        """
        tables = validate(tables)
        items = tables.items.with_row_index("item").with_columns(pl.col("item").cast(pl.UInt32))
        users = tables.users.with_row_index("user").with_columns(pl.col("user").cast(pl.UInt32))
        columns = ["item", "item_id", "title", *level_names(items.columns), "price"]
        known = tables.events["conversion"].null_count() < len(tables.events)
        further = tables.event_columns.model_copy(update={"conversion": known})
        events = (
            tables.events.lazy()
            .with_columns(
                dense(tables.events["user_id"], users["user_id"]).alias("user"),
                dense(tables.events["item_id"], items["item_id"]).alias("item"),
            )
            .select(
                "user",
                "item",
                pl.col("timestamp").cast(pl.Int64).alias("time"),
                "exposed",
                "click",
                "conversion",
                pl.col("matured_at").cast(pl.Int64),
                "price",
                *further.names,
            )
            .sort("time", "user", maintain_order=True)
            .with_row_index("event")
            .with_columns(pl.col("event").cast(pl.UInt32))
            .collect()
        )
        return cls(
            items.select(*columns, pl.exclude(columns)),
            users.select("user", "user_id", pl.exclude("user", "user_id")),
            events,
            tables.name,
            tables.domain,
            tables.notes,
            further,
            tables.levels,
            tables.reading,
        )

    @cached_property
    def tasks(self) -> tuple[Task, ...]:
        """Labels of the log: click, conversion if the log has it, and the declared labels.

        A label that is conditional on another label (``Task.given``) comes after that label.
        """
        return self.event_columns.tasks

    @property
    def context(self) -> tuple[str, ...]:
        """Columns of events that are known at the time of the request."""
        return self.event_columns.context

    @cached_property
    def levels(self) -> tuple[str, ...]:
        """Category columns of the data, the coarsest first; possibly none. ``items`` may have further category columns,
        which are empty."""
        return level_names(self.items.columns) if self.given_levels is None else self.given_levels

    @property
    def n_users(self) -> int:
        """Number of users in the table of users."""
        return len(self.users)

    @property
    def n_items(self) -> int:
        """Number of items in the catalogue."""
        return len(self.items)

    @cached_property
    def event_schema(self) -> pl.Schema:
        """Columns of the events and their types."""
        return self.events.schema

    @cached_property
    def last_time(self) -> int:
        """Time of the last event in microseconds; 0 if there are no events."""
        return int(self.events["time"].max() or 0)  # type: ignore[arg-type]

    @cached_property
    def history(self) -> History:
        """Interactions (events with a click) of each user."""
        return History.from_events(self.events, self.n_users)

    @cached_property
    def prices(self) -> Prices:
        """Prices of items over time. A ranker may use only ``prices.before(items, as_ofs)``."""
        return Prices.from_frames(self.events, self.items)

    def before(self, time: int) -> Dataset:
        """Return the dataset with only the events strictly before a time, in microseconds since the epoch."""
        return replace(self, events=self.events.filter(pl.col("time") < time))

    def with_users(self, users: pl.DataFrame, events: pl.DataFrame) -> Dataset:
        """Return a dataset with the same catalogue and prices, but other users and events.

        Further event columns that are missing from ``events`` are added and filled with null.
        """
        missing = [name for name in self.event_columns.names if name not in events.columns]
        if missing:
            events = events.with_columns(pl.lit(None, self.event_schema[name]).alias(name) for name in missing)
        made = Dataset(
            self.items, users, events, self.name, self.domain, self.notes, self.event_columns, self.given_levels
        )
        vars(made)["prices"] = self.prices  # prices come from the events of all users, not only of the given users
        return made

    def scan(self) -> pl.LazyFrame:
        """Return the events as a lazy frame, for queries that do not need all of them in memory."""
        return self.events.lazy()

    def save(self, folder: str | Path) -> None:
        """Write the dataset to a folder: three Parquet files, ``dataset.json``, the reading report and the arrays of
        :mod:`taiji.data.arrays`.

        Equal datasets are written as equal bytes.
        """
        with atomic_folder(folder) as temporary:
            for name in FRAMES:
                write_parquet(temporary / f"{name}.parquet", getattr(self, name))
            about = {
                "format": FORMAT,
                "name": self.name,
                "domain": self.domain,
                "notes": list(self.notes),
                "rows": {"users": self.n_users, "items": self.n_items, "events": len(self.events)},
                "event_columns": self.event_columns.model_dump(mode="json"),
                "levels": list(self.levels),
            }
            write_json(temporary / "dataset.json", about)
            if self.reading is not None:
                write_json(temporary / READING, self.reading.model_dump(mode="json"))
            store_arrays(temporary)

    @classmethod
    def load(cls, folder: str | Path) -> Dataset:
        """Read a dataset that :meth:`save` wrote.

        Raises:
            ArtifactError: a file is missing or unreadable, or the dataset has an unknown format.
        """
        folder = Path(folder)
        about = read_about(folder)
        items, users, events = (read_frame(folder, name) for name in FRAMES)
        return cls(items, users, events, **about)


def read_about(folder: Path) -> dict[str, Any]:
    """Read name, domain, notes, event columns, levels and reading report of a saved dataset.

    Raises:
        ArtifactError: the dataset has an unknown format.
    """
    about: dict[str, Any] = read_json(folder / "dataset.json")
    if about.get("format") not in READABLE:
        raise ArtifactError(
            "A saved dataset has an unknown format.",
            where=str(folder),
            expected=f"format 1 or {FORMAT}",
            found=str(about.get("format")),
            fix="run the data stage again",
        )
    columns = EventColumns.model_validate(about.get("event_columns", {}))
    return {
        "name": about["name"],
        "domain": about["domain"],
        "notes": tuple(about["notes"]),
        "event_columns": columns,
        "given_levels": tuple(about["levels"]) if "levels" in about else None,
        "reading": read_reading(folder),
    }


def read_reading(folder: Path) -> ReadingReport | None:
    """Return the reading report of a saved dataset, or None."""
    file = folder / READING
    return ReadingReport.model_validate(read_json(file)) if file.is_file() else None


def read_frame(folder: Path, name: str) -> pl.DataFrame:
    """Read one of the :data:`FRAMES` of a saved dataset.

    Raises:
        ArtifactError: the file cannot be read.
    """
    try:
        return pl.read_parquet(folder / f"{name}.parquet")
    except (OSError, pl.exceptions.PolarsError) as error:
        raise ArtifactError(
            "Could not read a file of a dataset.",
            where=str(folder / f"{name}.parquet"),
            found=str(error),
            fix="run the data stage again",
        ) from error
