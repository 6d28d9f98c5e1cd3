"""Evidence about an item: what the catalogue and comments say of it, each with the time from which it was known.

Only what was known before a time is evidence at that time. Comments are by strangers and titles by sellers, so sentences that speak
to a model in place of about the item are left out before anything reads them.
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
"""Columns of a table of comments; ``time`` as a timestamp or in microseconds since the epoch."""
AUTHOR = "user_id"
"""Optional column of comments: who wrote them. Of one author, and of all without a name, the newest about an item counts."""
UNTOLD = ("item", "item_id", FROM, UNTIL, *KNOWLEDGE)
"""Columns of the item table that are no evidence: ids, times, and what a language model wrote."""
DESCRIPTION_CHARACTERS, FIELD_CHARACTERS = 400, 120
"""Characters that are read; a longer field is a description."""
_WORD = re.compile(r"[^\W\d_]{3,}")


@dataclass(frozen=True)
class Fact:
    """Something that is said of an item.

    Attributes:
        source: who says it. name: name of the field. text: as it may be shown. time: microseconds since the epoch, from which it was known.
    """

    source: Source
    name: str
    text: str
    time: int


@dataclass(frozen=True)
class Evidence:
    """Facts about an item that were known before a time.

    Attributes:
        item_id: as the catalogue has it. as_of: microseconds since the epoch. facts: catalogue first, then comments, newest first.
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
        """Facts of comments."""
        return tuple(fact for fact in self.facts if fact.source == "comment")

    @property
    def title(self) -> str:
        """Title; empty where there is none."""
        return next((fact.text for fact in self.facts if fact.source == "title"), "")

    @property
    def tells(self) -> bool:
        """True if something speaks of this very item in words: a title, a description, a comment. A category and a price do not."""
        return any(fact.source != "field" and _WORD.search(fact.text) for fact in self.facts)


def gather_evidence(
    items: pl.DataFrame, levels: Sequence[str], as_of: int, listed: Sequence[int], comments: pl.DataFrame | None = None
) -> list[Evidence]:
    """Return the evidence about each item that was known before ``as_of``.

    Args:
        items: a row per item: ``item_id``, ``title``, categories, further columns.
        levels: category columns. as_of: microseconds since the epoch.
        listed: when the catalogue listed each item, microseconds; its fields are known from then on.
        comments: see :data:`COMMENT_COLUMNS`.

    Raises:
        InputError: no ``item_id``, or comments without the columns.
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
        text = about_the_item(str(row[name]))
        long = len(text) > FIELD_CHARACTERS or "description" in name.casefold()
        shown = shorten(text, DESCRIPTION_CHARACTERS if long else FIELD_CHARACTERS)
        given.append(("description" if long else "field", name.replace("_", " "), shown))
    return [Fact(source, name, text, time) for source, name, text in given if text]


def _comments(table: pl.DataFrame | None, as_of: int) -> dict[str, list[Fact]]:
    """Return the comments on each item that were made before a time, newest first; one that says the same as another is left out."""
    if table is None:
        return {}
    missing = [name for name in COMMENT_COLUMNS if name not in table.columns]
    if missing:
        raise InputError(
            "A table is not one of comments.",
            where="comments",
            expected=f"columns {', '.join(COMMENT_COLUMNS)}",
            found=f"no {', '.join(missing)}",
            fix="give every comment its time: what was said later must not be evidence",
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
    """Return when a table without a log says that its items were listed, microseconds; the beginning of time where it does not."""
    return [int(time) for time in bound_times(items, FROM, EVER.min)]
