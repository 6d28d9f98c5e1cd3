"""Find references between files (foreign keys), and dependencies between the columns of a file."""

from __future__ import annotations

from dataclasses import dataclass

import polars as pl

from taiji.data.discovery.columns import Column
from taiji.data.discovery.table_files import Table
from taiji.data.identity import joined

COMPARED = 20_000
"""Largest number of distinct ids of a column to look up in the key of another file."""


MIN_KNOWN = 0.5
"""Smallest share of the ids of a column that must occur in a key for the column to count as a reference to the key."""
MIN_KNOWN_LOOSE = 0.75
"""Smallest share, instead of :data:`MIN_KNOWN`, if the ids are spelt differently, the key repeats some ids, or the key
holds neither text nor values of the same kind as the column."""
MIN_KNOWN_NEAR = 0.2
"""Smallest share of the log's ids that an unused table must contain, in any spelling, to be reported."""
MIN_IDS = 5
"""Smallest number of distinct ids of a key if the match is inexact (:data:`MIN_KNOWN_LOOSE`) or the table is unused,
because a few small numbers occur in any column."""


@dataclass(frozen=True)
class Link:
    """Reference from a column to the key of another file.

    Attributes:
        column: column in the referring file.
        key: key column of the other file.
        known: share of the distinct values of the column that occur in the key.
        used: share of the values of the key that occur in the column.
    """

    column: str
    key: str
    known: float
    used: float

    @property
    def strength(self) -> float:
        """Score of the link: ``known``, reduced by up to one half if less than half of the key is used, as with small
        numbers that occur in any key.
        """
        return self.known * (0.5 + 0.5 * min(1.0, 2 * self.used))


def links(table: Table, other: Table) -> list[Link]:
    """Return all links from one file to the keys of another, strongest first."""
    found = []
    for key in (column for column in other.columns.values() if column.key or column.nearly_key):
        known = other.ids(key.name)
        for column in table.columns.values():
            if column.identifier:
                values = table.ids(column.name).head(COMPARED)
                comparison = joined(known, values, column.name, other.path.name)
                hits = comparison.match.event_ids_known
                loose = bool(comparison.changes) or not key.key or key.kind not in (column.kind, "text")
                if loose and key.distinct < MIN_IDS:
                    continue
                if hits and hits >= (MIN_KNOWN_LOOSE if loose else MIN_KNOWN) * comparison.match.event_ids:
                    used = min(1.0, hits * max(1.0, column.distinct / COMPARED) / len(known))
                    found.append(Link(column.name, key.name, hits / comparison.match.event_ids, used))
    return sorted(found, key=lambda link: (-link.strength, link.column, link.key))


def unlinked(log: Table, table: Table) -> str:
    """Describe an unused table whose ids resemble the ids of the log; return an empty string if they do not."""
    best, note = 0, ""
    for key in (column for column in table.columns.values() if column.identifier):
        for column in log.columns.values():
            alike = bool(column.means & key.means & {"item", "user"}) or column.name == key.name
            if column.identifier and key.distinct >= MIN_IDS and (key.nearly_key or (alike and key.unique < 1)):
                match = joined(
                    table.ids(key.name), log.ids(column.name).head(COMPARED), column.name, table.path.name
                ).match
                found = match.near + (match.event_ids_known if alike else 0)
                if found > best and found >= MIN_KNOWN_NEAR * match.event_ids:
                    near = f"; {match.near:,} differ only in spelling ({match.near_text})" if match.near else ""
                    best = found
                    advice = (
                        "If the ids mean the same, spell them alike in both files." if match.near else "Is it needed?"
                    )
                    if not key.nearly_key:
                        advice = f"Its ids are repeated ({key.present / key.distinct:.1f} rows per id): keep only the row of each id that was valid at the time of the log, or use the first row of each with --set items.file={table.path.name} (or users.file). {advice}"
                    note = (
                        f"{table.path.name} is not used: of the {match.event_ids:,} distinct values of {column.name} in {log.path.name}, "
                        f"{match.event_ids_known:,} occur in its {key.name}{near}. {advice}"
                    )
    return note


def depends(table: Table, key: str, column: Column) -> bool:
    """Return True if a column of a joined table depends on ``key``: several ids are repeated, and nearly every repeated
    id has a single value.
    """
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
    """Return True if each value of ``fine`` belongs to one value of ``coarse``, as with category levels.

    Up to 5 % of the rows may be exceptions.
    """
    pairs = table.frame.select(pl.col(coarse).alias("coarse"), pl.col(fine).alias("fine")).drop_nulls()
    largest = pairs.group_by("fine", "coarse").len().group_by("fine").agg(pl.col("len").max())["len"].sum()
    return len(pairs) > 0 and largest >= 0.95 * len(pairs)
