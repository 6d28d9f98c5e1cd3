"""Keys between files, and dependencies between columns within one."""

from __future__ import annotations

from dataclasses import dataclass

import polars as pl

from taiji.data.discovery.columns import Column
from taiji.data.discovery.table_files import Table
from taiji.data.identity import joined

COMPARED = 20_000
"""Number of distinct ids of a column to look up in another file's key."""


FEWEST = 0.5
"""Share of a column's ids that must occur in a key for a reference."""
FEWEST_LOOSE = 0.75
"""The same if ids are spelt differently, or the key repeats some."""
FEWEST_NEAR = 0.2
"""Share of a log's ids that a table must hold, in any spelling, to be reported."""
TELLING = 5
"""Minimum number of distinct ids of such a key, since a few small numbers occur in any column."""


@dataclass(frozen=True)
class Link:
    """A column whose values are found in another file's key.

    Attributes:
        column: column of the referring file.
        key: the other file's column.
        known: share of the column's different values that the key has.
        used: share of the key's values that the column uses.
    """

    column: str
    key: str
    known: float
    used: float

    @property
    def strength(self) -> float:
        """Near 1 if nearly all values are known and much of the key is used; low for small numbers that occur in any key."""
        return self.known * (0.5 + 0.5 * min(1.0, 2 * self.used))


def links(table: Table, other: Table) -> list[Link]:
    """Return all links from a file to a key of another, the strongest first."""
    found = []
    for key in (column for column in other.columns.values() if column.key or column.nearly_key):
        known = other.ids(key.name)
        for column in table.columns.values():
            if column.identifier:
                values = table.ids(column.name).head(COMPARED)
                made = joined(known, values, column.name, other.path.name)
                hits = made.match.event_ids_known
                loose = bool(made.changes) or not key.key or key.kind not in (column.kind, "text")
                if loose and key.distinct < TELLING:
                    continue
                if hits and hits >= (FEWEST_LOOSE if loose else FEWEST) * made.match.event_ids:
                    used = min(1.0, hits * max(1.0, column.distinct / COMPARED) / len(known))
                    found.append(Link(column.name, key.name, hits / made.match.event_ids, used))
    return sorted(found, key=lambda link: (-link.strength, link.column, link.key))


def unlinked(log: Table, table: Table) -> str:
    """Return a sentence about an unused table whose ids resemble the log's; empty if they do not."""
    best, said = 0, ""
    for key in (column for column in table.columns.values() if column.identifier):
        for column in log.columns.values():
            alike = bool(column.means & key.means & {"item", "user"}) or column.name == key.name
            if column.identifier and key.distinct >= TELLING and (key.nearly_key or (alike and key.unique < 1)):
                match = joined(
                    table.ids(key.name), log.ids(column.name).head(COMPARED), column.name, table.path.name
                ).match
                found = match.near + (match.event_ids_known if alike else 0)
                if found > best and found >= FEWEST_NEAR * match.event_ids:
                    near = f"; {match.near:,} differ only in spelling ({match.near_text})" if match.near else ""
                    best = found
                    ask = "Write the ids alike in both files if they mean the same." if match.near else "Is it needed?"
                    if not key.nearly_key:
                        ask = f"Its ids come again ({key.present / key.distinct:.1f} rows each): leave the one row of each that held at the time of the log, or take the first of each by --set items.file={table.path.name} (or users.file). {ask}"
                    said = (
                        f"{table.path.name} plays no part: of {match.event_ids:,} different values of {log.path.name}'s {column.name} "
                        f"its {key.name} knows {match.event_ids_known:,}{near}. {ask}"
                    )
    return said


def depends(table: Table, key: str, column: Column) -> bool:
    """Return True if a column of a joined table depends on ``key``: each id has (nearly always) one value, and ids repeat."""
    listed = isinstance(table.frame.schema[column.name], pl.List)
    if (column.kind == "other" or column.distinct < 2) and not listed:
        return False
    value = pl.col(column.name)
    text = value.list.eval(pl.element().cast(pl.String)).list.join("\n") if listed else value.cast(pl.String)
    pairs = table.frame.select(pl.col(key).alias("key"), text.alias("value")).drop_nulls()
    if pairs.is_empty():
        return False
    different = (
        pairs.group_by("key")
        .agg(pl.col("value").n_unique().alias("values"), pl.len().alias("rows"))
        .filter(pl.col("rows") > 1)
    )
    return len(different) >= 5 and float((different["values"] == 1).mean() or 0.0) >= 0.97  # type: ignore[arg-type]


def nests(table: Table, coarse: str, fine: str) -> bool:
    """Return True if each value of ``fine`` lies in one value of ``coarse`` (for 95 % of all rows), like category levels."""
    pairs = table.frame.select(pl.col(coarse).alias("coarse"), pl.col(fine).alias("fine")).drop_nulls()
    largest = pairs.group_by("fine", "coarse").len().group_by("fine").agg(pl.col("len").max())["len"].sum()
    return len(pairs) > 0 and largest >= 0.95 * len(pairs)
