"""Decide which file is the log, which is the table of items and which is the table of users."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from itertools import product
from pathlib import Path

import polars as pl

from taiji.core.errors import InputError
from taiji.data.discovery.columns import Column
from taiji.data.discovery.parts import (
    CLOSE,
    ENOUGH,
    Guess,
    Question,
    Score,
    id_score,
    time_score,
    title_score,
)
from taiji.data.discovery.relations import Link, links
from taiji.data.discovery.table_files import Table
from taiji.data.discovery.words import parts
from taiji.data.sources.delimited import named

MOSTLY = 0.8
"""A column with values in less than this share of its rows scores lower as an id, because another id column may be
complete."""
FILMS = {"movie", "movies", "film", "films", "filme", "video", "videos", "电影"}
BOOKS = {"book", "books", "buch", "bücher", "isbn", "图书", "书名", "livre", "livres", "libro"}


@dataclass
class Roles:
    """Roles of the files, with the scores of their columns as ids.

    Attributes:
        events: the log.
        items, users: table of the items or of the users; None if only the log, or no file, describes them.
        user_scores, item_scores: scores of the log's columns as the user id or the item id, by column name.
        item_keys, user_keys: scores of the columns of the item or user table as its key, by column name.
        reasons: reasons by role, as sentences.
        fit: total score of this assignment.
    """

    events: Table
    items: Table | None
    users: Table | None
    user_scores: dict[str, Score] = field(default_factory=dict)
    item_scores: dict[str, Score] = field(default_factory=dict)
    item_keys: dict[str, Score] = field(default_factory=dict)
    user_keys: dict[str, Score] = field(default_factory=dict)
    reasons: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    fit: float = 0.0

    @property
    def domain(self) -> tuple[str, str]:
        """Domain of the items, inferred from the names of files and columns, and the reason."""
        tables = [table for table in (self.events, self.items) if table]
        words = {word for table in tables for name in (table.path.stem, *table.columns) for word in parts(name)}
        if words & FILMS:
            return "films", f"a file or column name contains {min(words & FILMS)}"
        if words & BOOKS:
            return "books", f"a file or column name contains {min(words & BOOKS)}"
        return "shop", "no file or column name mentions films or books"


def assign(tables: list[Table], answers: dict[str, str]) -> tuple[Roles, Question | None]:
    """Return the most likely roles of the files, and a question if two files are about equally likely to be the log.

    Raises:
        InputError: no file has a time column, the log is split between two files, each row of the log lists several
            items, or an answer does not name a file of the folder.
    """
    fixed = {role: _file(tables, role, answers) for role in ("events", "items", "users") if f"{role}.file" in answers}
    found = {(a.path, b.path): links(a, b) for a in tables for b in tables if a is not b}
    best: dict[str, Roles] = {}
    for events in [fixed["events"]] if "events" in fixed else tables:
        if not any(time_score(column)[0] for column in events.columns.values()) and "events.timestamp" not in answers:
            continue
        rest: list[Table | None] = [None, *(table for table in tables if table is not events)]
        for items, users in product(
            [fixed["items"]] if "items" in fixed else rest, [fixed["users"]] if "users" in fixed else rest
        ):
            items = None if items is events else items
            users = None if users is events else users
            if items is not None and items is users:
                continue
            roles = _roles(events, items, users, found)
            if events in [table for role, table in fixed.items() if role != "events"] and "events" not in fixed:
                roles.fit -= 1.5  # the user assigned another role to this file
            if events.path.name not in best or roles.fit > best[events.path.name].fit + 1e-9:
                best[events.path.name] = roles
    if not best:
        raise InputError(
            "No file looks like a log.",
            where=", ".join(table.path.name for table in tables),
            expected="a file whose rows each have a user, an item and a timestamp",
            found="; ".join([*(_described(table) for table in tables), *_no_times(tables)]),
            fix="add the log, or name its time column: --set events.file=FILE --set events.timestamp=COLUMN (with --set events.timestamp.format=… or .unit=…)",
        )
    ranked = sorted(best.values(), key=lambda roles: (-roles.fit, roles.events.path.name))
    _check_single_log(ranked[0], tables, found)
    if "events.item_id" not in answers:
        _check_one_item_per_row(ranked[0], tables)
    if len(ranked) > 1 and ranked[0].fit - ranked[1].fit <= CLOSE:
        choices = tuple(
            Guess(
                roles.events.path.name,
                min(1.0, roles.fit / 3),
                (f"{len(roles.events.frame):,} rows: {', '.join(roles.events.columns)}",),
            )
            for roles in ranked[:5]
        )
        return ranked[0], Question(
            "events.file",
            "which file is the log (several look like a log; if they belong together, join them first)",
            choices,
        )
    return ranked[0], None


def _described(table: Table) -> str:
    columns = f"{table.path.name}: {', '.join(table.columns)}"
    if table.header:
        return f"{columns} (the first line is not a header)"
    if table.separator and len(table.frame.columns) == 1:
        return f"{columns} (a single column: no separator was recognised, so {named(table.separator)} were assumed)"
    return columns


def _no_times(tables: list[Table]) -> list[str]:
    """Return a sentence about each column that is named like a time but cannot be read as one."""
    return [
        f"{column.name} of {table.path.name} cannot be read as times in a single unit or format ({column.describe()})"
        for table in tables
        for column in table.columns.values()
        if "time" in column.means and not time_score(column)[0]
    ]


def _file(tables: list[Table], role: str, answers: dict[str, str]) -> Table:
    name = answers[f"{role}.file"]
    for table in tables:
        if table.path.name == name:
            return table
    raise InputError(
        "The file does not exist.",
        where=f"{role}.file={name}",
        expected=", ".join(table.path.name for table in tables),
        found=name,
        fix="name one of these files; to use several files as one table, put them into a folder of their own and name that folder",
    )


def _roles(
    events: Table, items: Table | None, users: Table | None, found: dict[tuple[Path, Path], list[Link]]
) -> Roles:
    roles = Roles(events, items, users)
    roles.user_scores, roles.item_scores = _ids(events, "user"), _ids(events, "item")
    fit = 0.4 * ("events" in events.means) - 0.2 * bool(
        events.means & {"items", "users"} and "events" not in events.means
    )
    fit += max(time_score(column)[0] for column in events.columns.values()) if events.columns else 0.0
    reasons: dict[str, tuple[str, ...]] = {"events": (f"{len(events.frame):,} rows, each with a time",)}
    for role, table, scores, meaning in (
        ("items", items, roles.item_scores, "item"),
        ("users", users, roles.user_scores, "user"),
    ):
        if table is None:
            continue
        keys = {column.name: _key_score(column, meaning) for column in table.columns.values() if column.identifier}
        best: Link | None = None
        worth = -1.0
        for link in found[events.path, table.path]:
            value = link.strength + scores.get(link.column, (0.0, ()))[0] + keys.get(link.key, (0.0, ()))[0]
            if link.strength >= 0.5 and value > worth:
                best, worth = link, value
        if best is None:
            fit -= 1.0
        else:
            fit += 0.5 * worth
            known = f"{best.known:.0%} of its values are in {table.path.name}'s {best.key}"
            bonus = 0.45 + 0.15 * (role == "users" and role in table.means)
            scores[best.column] = (scores[best.column][0] + bonus * best.strength, (*scores[best.column][1], known))
            keys[best.key] = (
                keys[best.key][0] + 0.45 * best.strength,
                (*keys[best.key][1], f"{events.path.name}'s {best.column} refers to it"),
            )
            reasons[role] = (f"{events.path.name}'s {best.column} refers to this file's {best.key}",)
        fit += 0.3 * (role in table.means) - 0.3 * bool(table.means - {role})
        title = max(
            (title_score(column)[0] for column in table.columns.values() if "user" not in column.means), default=0.0
        )
        fit += 0.4 * title if role == "items" else -0.15 * title
        setattr(roles, f"{meaning}_keys", keys)
    roles.fit, roles.reasons = fit + _separate_ids(roles), reasons
    return roles


def _ids(table: Table, meaning: str) -> dict[str, Score]:
    scores = {column.name: id_score(column, meaning) for column in table.columns.values() if column.identifier}
    for name, (score, reasons) in scores.items():
        column = table.columns[name]
        if column.present < MOSTLY * column.rows:
            score -= 0.3
            reasons = (*reasons, f"{column.rows - column.present:,} rows have no value")
            scores[name] = (score, reasons)
        if column.unique > 0.97:
            scores[name] = (score - 0.3, reasons)  # probably the number of a row or an order
        elif column.distinct >= 5:
            scores[name] = (
                score + 0.15,
                (
                    *reasons,
                    f"{column.distinct:,} distinct values, {column.present / column.distinct:.1f} rows per value",
                ),
            )
    return scores


def _key_score(column: Column, meaning: str) -> Score:
    score, reasons = id_score(column, meaning)
    if column.key:
        return score + 0.3, (*reasons, "every value is unique")
    again = column.present - column.distinct
    return (score + 0.1, (*reasons, f"{again:,} rows repeat an id")) if column.nearly_key else (score - 0.3, reasons)


def _separate_ids(roles: Roles) -> float:
    """Choose the best pair of a user column and an item column, and lower the score of each for the other role.

    The scores are unchanged if one of the two columns is a poor candidate.

    Returns:
        half the sum of the pair's scores, or -2 if there is no pair of different columns.
    """
    pairs = [(u[0] + i[0], a, b) for a, u in roles.user_scores.items() for b, i in roles.item_scores.items() if a != b]
    if not pairs:
        return -2.0
    total, user, item = max(pairs, key=lambda pair: (pair[0], pair[1], pair[2]))
    if min(roles.user_scores[user][0], roles.item_scores[item][0]) < ENOUGH:
        return 0.5 * total  # the user is asked to choose among all candidates
    roles.user_scores = {
        name: (score - 0.4, why) if name == item else (score, why) for name, (score, why) in roles.user_scores.items()
    }
    roles.item_scores = {
        name: (score - 0.4, why) if name == user else (score, why) for name, (score, why) in roles.item_scores.items()
    }
    return 0.5 * total


def _check_single_log(roles: Roles, tables: Iterable[Table], found: dict[tuple[Path, Path], list[Link]]) -> None:
    """Reject a log that is split into orders and order lines, with instructions for joining the two files."""
    best = {
        meaning: max((score for score, _ in scores.values()), default=0.0)
        for meaning, scores in (("user", roles.user_scores), ("item", roles.item_scores))
    }
    for meaning, score in best.items():
        if score >= 0.4:
            continue
        for other in tables:
            column = next(
                (column.name for column in other.columns.values() if id_score(column, meaning)[0] >= 0.5), None
            )
            # Orders and order lines share an order number, so the link must be a column other than the id found here.
            candidates = (link for link in found.get((other.path, roles.events.path), []) if link.column != column)
            link = next(candidates, None)
            if other is not roles.events and other not in (roles.items, roles.users) and column and link:
                raise InputError(
                    "The log is split between two files.",
                    where=f"{roles.events.path.name} and {other.path.name}",
                    expected="one file whose rows each have a user, an item and a timestamp",
                    found=f"the {meaning} is in {other.path.name} ({column}), whose column {link.column} refers to {roles.events.path.name}",
                    fix=f"join them: polars.read_csv({other.path.name!r}).join(polars.read_csv({roles.events.path.name!r}), left_on={link.column!r}, right_on={link.key!r}).write_parquet('log.parquet'), then move these two files to another folder",
                )


def _check_one_item_per_row(roles: Roles, tables: Iterable[Table]) -> None:
    """Reject a log whose rows list several items, with instructions for writing one row per item."""
    if max((score for score, _ in roles.item_scores.values()), default=0.0) >= ENOUGH:
        return
    log = roles.events
    for column in sorted(log.columns.values(), key=lambda column: not column.means & {"exposed", "item", "click"}):
        cells = log.frame[column.name].drop_nulls().head(200)
        if cells.dtype == pl.String:
            listed = cells.str.split(" ") if column.spaces >= 0.5 else cells.str.extract_all(r"[^|,;]+")
        elif isinstance(cells.dtype, pl.List) and not cells.dtype.inner.is_nested():  # type: ignore[union-attr]
            listed = cells.cast(pl.List(pl.String))
        else:
            continue
        named = listed.explode().drop_nulls().str.strip_chars().str.replace(r"-[01]$", "")
        if len(named) < 1.5 * len(cells):
            continue
        for other in tables:
            for key in (key for key in other.columns.values() if key.key and other is not log):
                known = other.ids(key.name).cast(pl.String)
                if float(named.is_in(known.implode()).mean() or 0.0) >= 0.8:  # type: ignore[arg-type]
                    example = listed[0].to_list()
                    raise InputError(
                        "Rows of the log contain several items each.",
                        where=f"{log.path.name}, column {column.name}",
                        expected="one row per item that was shown or chosen",
                        found=f"{len(example)} ids of {other.path.name}'s {key.name} in the first row: {', '.join(example[:4])}",
                        fix=f"write one row per item: split the column into a list, then call polars' frame.explode({column.name!r}); move the suffix of the ids (-0, -1) into a separate column, for example clicked",
                    )
