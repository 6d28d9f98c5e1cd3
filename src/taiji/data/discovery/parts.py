"""Scores of columns for roles, with their confidence."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from taiji.data.discovery.columns import Column
from taiji.data.discovery.relations import nests
from taiji.data.discovery.table_files import Table
from taiji.data.sources.number_cells import MOST_NUMBERS, PLAIN

Score = tuple[float, tuple[str, ...]]
CLOSE = 0.12
"""A runner-up within this margin of the best turns the choice into a question."""
ENOUGH = 0.4
"""A required role with a score below this becomes a question."""
SEPARATED = ("|", " > ", ">", " / ", "/", ";")


@dataclass(frozen=True)
class Guess:
    """A value for a key of the mapping, with its confidence (0…1) and reason.

    Attributes:
        others: other candidates with their scores.
        column: the column a structured value reads.
    """

    value: Any
    confidence: float
    reasons: tuple[str, ...]
    others: tuple[tuple[str, float], ...] = ()
    column: str | None = None

    @property
    def sure(self) -> str:
        """Confidence as a word."""
        return "sure" if self.confidence >= 0.8 else "likely" if self.confidence >= 0.55 else "GUESS"


@dataclass(frozen=True)
class Question:
    """A required role that the files do not determine.

    Attributes:
        key: key of the mapping.
        what: is asked, as the end of "Please say …".
        choices: the candidates, best first.
    """

    key: str
    what: str
    choices: tuple[Guess, ...]


def pick(key: str, table: Table, scores: Mapping[str, Score], what: str) -> Guess | Question:
    """Return the best column, or a question if it is not clearly the best."""
    ranked = sorted(scores.items(), key=lambda entry: (-entry[1][0], list(table.columns).index(entry[0])))
    able = [(name, score) for name, score in ranked if score[0] > 0.15]
    others = tuple((name, round(score, 2)) for name, (score, _) in able[1:4])
    if able and able[0][1][0] >= ENOUGH and (len(able) < 2 or able[0][1][0] - able[1][1][0] > CLOSE):
        name, (score, reasons) = able[0]
        return Guess(name, min(1.0, score), reasons, others)
    choices = tuple(
        Guess(name, min(1.0, score), (table.columns[name].describe(), *reasons)) for name, (score, reasons) in able[:5]
    )
    if not choices:
        choices = tuple(Guess(name, 0.0, (column.describe(),)) for name, column in list(table.columns.items())[:8])
    return Question(key, what, choices)


def id_score(column: Column, meaning: str) -> Score:
    """Score a column as the id of a ``user`` or an ``item``, by name and values alone."""
    if not column.identifier:
        return 0.0, ()
    other = "item" if meaning == "user" else "user"
    score, reasons = 0.1, ["its values can be ids"]
    if meaning in column.means:
        score += 0.5
        reasons.append(f"its name says {meaning}")
        if "id" in column.means:
            score += 0.1
    elif other in column.means or column.means & {"quantity", "price", "rating", "time", "category"}:
        score -= 0.4
    if column.means & {"title", "category", "price", "time", "rating", "quantity"} and "id" not in column.means:
        score -= 0.25
    if column.units and "time" in column.means:
        score -= 0.5
    return score, tuple(reasons)


def time_score(column: Column) -> Score:
    """Score a column as the time of an event; one missing in most rows is the time of something else."""
    score, reasons = _time_score(column)
    return (score if column.present >= 0.5 * column.rows else 0.4 * score), reasons


def _time_score(column: Column) -> Score:
    column = column.understood
    named = "time" in column.means
    if column.kind == "time":
        return (0.95, ("its values are dates", "its name says time")) if named else (0.75, ("its values are dates",))
    if column.units == ("excel",):
        return 0.6, ("its values are a spreadsheet's serial days", "its name says time")
    if column.kind in ("integer", "number") and column.units:
        return (
            (0.9, (f"its values are times in {column.units[0]}", "its name says time"))
            if named
            else (0.5, (f"its values could be times in {column.units[0]}",))
        )
    if column.kind == "integer" and column.formats:
        return (
            (0.85, ("its values are dates written as numbers", "its name says time"))
            if named
            else (0.45, ("its values could be dates written as numbers",))
        )
    return 0.0, ()


def title_score(column: Column) -> Score:
    """Score a column as the text that names an item."""
    if column.kind != "text" or column.distinct < 2:
        return 0.0, ()
    score, reasons = 0.0, []
    if "title" in column.means and "user" not in column.means:
        score += 0.5
        reasons.append("its name says title")
        if column.means & {"category", "id"}:
            score -= 0.25
    elif column.means & {"user", "category", "time", "price", "action", "id"}:
        score -= 0.2
    if 4 <= column.characters <= 150:
        score += 0.15 + 0.15 * (column.spaces > 0.3)
        reasons.append(f"texts of {column.characters:.0f} characters")
    if column.unique > 0.5:
        score += 0.2
        reasons.append("nearly every item has its own")
    return score, tuple(reasons)


def price_score(column: Column) -> Score:
    """Score a column as a price."""
    column = column.understood
    if (
        column.kind not in ("number", "integer")
        or "price" not in column.means
        or column.negative > (1 - MOST_NUMBERS) * column.present
    ):
        return 0.0, ()
    reasons = ["its name says price", "its values are numbers of at least 0"]
    if column.negative:
        reasons[1] = f"nearly all of its values are numbers of at least 0 ({column.negative:,} are below)"
    if column.form != PLAIN:
        reasons.append(f"written as {column.form}")
    sure = 0.5 if len(column.forms) > 1 else 0.85 if column.kind == "number" else 0.7
    return min(sure, 0.75) if column.broken else sure, tuple(reasons)


def says_price(column: Column) -> bool:
    """Return True if an unused column is a price by name, without another meaning."""
    return "price" in column.means and not column.means - {"price"} and column.kind in ("text", "number", "integer")


def categories(table: Table, columns: list[Column]) -> dict[str, Guess]:
    """Propose category levels: one column that holds them all, or one each, the coarsest first; at most three if they have no names."""
    for column in columns:
        if column.kind == "list" and "category" in column.means:
            return {
                "categories": Guess(
                    {"column": column.name}, 0.8, ("a list in each row, by name of categories",), column=column.name
                )
            }
        if column.name in table.sequences and column.kind == "text" and "category" in column.means:
            reason = "several values in each row, by its header"
            return {"categories": Guess({"column": column.name, "separator": " "}, 0.8, (reason,), column=column.name)}
        if column.kind == "text" and "category" in column.means:
            values = table.frame[column.name].drop_nulls().head(2000)
            for separator in SEPARATED:
                if float(values.str.contains(separator, literal=True).mean() or 0.0) >= 0.5:  # type: ignore[arg-type]
                    return {
                        "categories": Guess(
                            {"column": column.name, "separator": separator},
                            0.8,
                            (f"levels joined by {separator!r}",),
                            column=column.name,
                        )
                    }
    named = [
        column
        for column in columns
        if "category" in column.means and column.kind in ("text", "flag") and column.distinct >= 2
    ]
    few = [
        column
        for column in columns
        if column.kind == "text"
        and 2 <= column.distinct <= max(20, 0.2 * column.present)
        and column.characters <= 40
        and not column.means & {"user", "id"}
    ]
    chosen = sorted(named or few, key=lambda column: (column.distinct, column.name))[: None if named else 3]
    if named:  # a name tells where to begin, values tell what lies below
        for column in sorted(few, key=lambda column: (column.distinct, column.name)):
            if (
                len(chosen) < 3
                and column not in chosen
                and column.distinct > chosen[-1].distinct
                and nests(table, chosen[-1].name, column.name)
            ):
                chosen.append(column)
    guesses = {}
    for place, column in enumerate(chosen):
        reasons = (
            []
            if named and column not in named
            else ["its name says category" if named else f"text with only {column.distinct} different values"]
        )
        if place and nests(table, chosen[place - 1].name, column.name):
            reasons.append(f"each value lies in one {chosen[place - 1].name}")
        guesses[f"category_l{place + 1}"] = Guess(
            column.name, 0.85 if column in named else 0.6 if named else 0.45, tuple(reasons)
        )
    return guesses
