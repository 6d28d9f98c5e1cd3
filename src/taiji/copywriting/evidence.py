"""Evidence about an item: facts from the catalogue and from comments, each with the time from which it was known.

Only facts that were known before a given time are evidence at that time. Comments are written by strangers and titles
by sellers, so sentences that address a model instead of describing the item are removed first.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import polars as pl

from taiji.copywriting.untrusted_text import about_the_item
from taiji.core.errors import InputError
from taiji.data.availability import EVER, FROM, UNTIL, bound_times
from taiji.data.knowledge_rows import COLUMNS as KNOWLEDGE
from taiji.reasoning.prompts import shorten

Source = Literal["title", "field", "description", "comment"]
COMMENT_COLUMNS = ("item_id", "text", "time")
"""Columns of a table of comments; ``time`` is a timestamp or microseconds since the epoch."""
AUTHOR = "user_id"
"""Optional column of comments with the author. Per item, only the newest comment of each author counts; all comments
without an author count as comments of one author."""
UNTOLD = ("item", "item_id", FROM, UNTIL, *KNOWLEDGE)
"""Columns of the item table that are not evidence: ids, times, and texts written by a language model."""
DESCRIPTION_CHARACTERS, FIELD_CHARACTERS = 400, 120
"""Largest number of characters read from a description, and from any other field. A field with more characters is
treated as a description."""
_WORD = re.compile(r"[^\W\d_]{3,}")


@dataclass(frozen=True)
class Fact:
    """Statement about an item.

    Attributes:
        source: source of the statement.
        name: name of the field.
        text: text that may be shown.
        time: time from which it was known, in microseconds since the epoch.
    """

    source: Source
    name: str
    text: str
    time: int


@dataclass(frozen=True)
class Evidence:
    """Facts about an item that were known before a time.

    Attributes:
        item_id: id in the catalogue.
        as_of: microseconds since the epoch.
        facts: facts of the catalogue, followed by comments, newest first.
    """

    item_id: str
    as_of: int
    facts: tuple[Fact, ...]

    @property
    def catalogue(self) -> tuple[Fact, ...]:
        """Facts of the catalogue."""
        return tuple(fact for fact in self.facts if fact.source != "comment")

    @property
    def comments(self) -> tuple[Fact, ...]:
        """Facts from comments, newest first."""
        return tuple(fact for fact in self.facts if fact.source == "comment")

    @property
    def title(self) -> str:
        """Title; empty if there is none."""
        return next((fact.text for fact in self.facts if fact.source == "title"), "")

    @property
    def tells(self) -> bool:
        """True if there is text about this particular item: a title, a description or a comment. A category and a price
        are not enough."""
        return any(fact.source != "field" and _WORD.search(fact.text) for fact in self.facts)


def gather_evidence(
    items: pl.DataFrame, levels: Sequence[str], as_of: int, listed: Sequence[int], comments: pl.DataFrame | None = None
) -> list[Evidence]:
    """Return the evidence about each item that was known before ``as_of``.

    Args:
        items: one row per item: ``item_id``, ``title``, categories, and further columns.
        levels: category columns.
        as_of: microseconds since the epoch.
        listed: time at which the catalogue listed each item, in microseconds; its fields are known from then on.
        comments: table with the columns :data:`COMMENT_COLUMNS`, or None.

    Raises:
        InputError: ``item_id`` is missing, or the comments lack columns.
    """
    if "item_id" not in items.columns:
        raise InputError(
            "The items have no ids.", where="items", expected="a column item_id", found=", ".join(items.columns)
        )
    said = _comments(comments, as_of)
    kinds = items.schema
    fields = [name for name in items.columns if name not in (*UNTOLD, "title", *levels) and not kinds[name].is_nested()]
    found = []
    for row, time in zip(items.iter_rows(named=True), listed):
        item = str(row["item_id"])
        facts = _catalogue(row, levels, fields, int(time)) if time < as_of else []
        found.append(Evidence(item, as_of, (*facts, *said.get(item, ()))))
    return found


def _written(value: object) -> str:
    """Return as text a value that is not text. A float has no exponent and, below a million, at most six digits."""
    if isinstance(value, float):
        return f"{value:.6g}" if 1e-4 <= abs(value) < 1e6 or not value else f"{value:.0f}"
    return str(value)


def _catalogue(row: dict[str, object], levels: Sequence[str], fields: Sequence[str], time: int) -> list[Fact]:
    given: list[tuple[Source, str, str]] = []
    if row.get("title") is not None:
        title = about_the_item(str(row["title"]), name=True)
        given.append(("title", "title", shorten(title, FIELD_CHARACTERS)))
    path = [about_the_item(str(row[name]), name=True) for name in levels if row.get(name) is not None]
    given.append(("field", "category", " > ".join(part for part in path if part)))
    for name in fields:
        if row[name] is None:
            continue
        value = row[name]
        text = about_the_item(value) if isinstance(value, str) else _written(value)
        long = len(text) > FIELD_CHARACTERS or "description" in name.casefold()
        shown = shorten(text, DESCRIPTION_CHARACTERS if long else FIELD_CHARACTERS)
        given.append(("description" if long else "field", name.replace("_", " "), shown))
    return [Fact(source, name, text, time) for source, name, text in given if text]


def _comments(table: pl.DataFrame | None, as_of: int) -> dict[str, list[Fact]]:
    """Return the comments on each item that were made before a time, newest first. A comment that repeats the text of a
    newer comment on the same item is dropped."""
    if table is None:
        return {}
    missing = [name for name in COMMENT_COLUMNS if name not in table.columns]
    if missing:
        raise InputError(
            "The table does not contain comments.",
            where="comments",
            expected=f"columns {', '.join(COMMENT_COLUMNS)}",
            found=f"no {', '.join(missing)}",
            fix="add the time of every comment: a later comment must not be evidence",
        )
    times = pl.Series("time", bound_times(table, "time", EVER.max, "comments"))
    rows = (
        table.with_columns(pl.col("item_id").cast(pl.String), pl.col("text").cast(pl.String), times)
        .drop_nulls(COMMENT_COLUMNS)
        .filter(pl.col("time") < as_of)
        .sort("time", descending=True, maintain_order=True)
    )
    if AUTHOR in table.columns:
        rows = rows.unique(["item_id", AUTHOR], keep="first", maintain_order=True)
    found: dict[str, list[Fact]] = {}
    seen: set[tuple[str, str]] = set()
    for item, text, at in rows.select(COMMENT_COLUMNS).iter_rows():
        shown = shorten(about_the_item(text), DESCRIPTION_CHARACTERS)
        if shown and (item, shown.casefold()) not in seen:
            seen.add((item, shown.casefold()))
            found.setdefault(item, []).append(Fact("comment", "comment", shown, at))
    return found


def listing_times(items: pl.DataFrame) -> list[int]:
    """Return each item's listing time (microseconds) from the item table alone, without a log; items without a listing
    time get the smallest possible value."""
    return [int(time) for time in bound_times(items, FROM, EVER.min)]
