"""Score columns as candidates for a role."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from taiji.data.discovery.columns import Column
from taiji.data.discovery.relations import nests
from taiji.data.discovery.table_files import Table
from taiji.data.discovery.words import says
from taiji.data.sources.number_cells import MOST_NUMBERS, PLAIN

Score = tuple[float, tuple[str, ...]]
CLOSE = 0.12
"""The user is asked if the two best scores differ by at most this much."""
ENOUGH = 0.4
"""Smallest score at which a required role is guessed rather than asked about."""
ANSWERED = ("you set this",)
"""Reasons of a guess that is the user's answer."""
SEPARATED = ("|", " > ", ">", " / ", "/", ";")
UNMISTAKABLE = ("|", " > ")
"""Separators of category levels in columns whose names do not suggest a category."""


@dataclass(frozen=True)
class Guess:
    """Proposed value for a key of the mapping.

    Attributes:
        value: proposed value.
        confidence: confidence in the value, from 0 to 1.
        reasons: reasons for the value.
        others: other candidates with their scores.
        column: column that the value reads, if the value is not simply the name of a column.
    """

    value: Any
    confidence: float
    reasons: tuple[str, ...]
    others: tuple[tuple[str, float], ...] = ()
    column: str | None = None

    @property
    def sure(self) -> str:
        """Confidence as a word: ``sure``, ``likely`` or ``GUESS``."""
        return "sure" if self.confidence >= 0.8 else "likely" if self.confidence >= 0.55 else "GUESS"


@dataclass(frozen=True)
class Question:
    """Question to the user about a part of the mapping that the files do not determine.

    Attributes:
        key: key of the mapping.
        what: subject of the question, which completes "Please specify …".
        choices: candidates, best first.
    """

    key: str
    what: str
    choices: tuple[Guess, ...]


def pick(key: str, table: Table, scores: Mapping[str, Score], what: str) -> Guess | Question:
    """Return the column with the highest score, or a question if no column is clearly the best."""
    ranked = sorted(scores.items(), key=lambda entry: (-entry[1][0], list(table.columns).index(entry[0])))
    candidates = [(name, score) for name, score in ranked if score[0] > 0.15]
    others = tuple((name, round(score, 2)) for name, (score, _) in candidates[1:4])
    if (
        candidates
        and candidates[0][1][0] >= ENOUGH
        and (len(candidates) < 2 or candidates[0][1][0] - candidates[1][1][0] > CLOSE)
    ):
        name, (score, reasons) = candidates[0]
        return Guess(name, min(1.0, score), reasons, others)
    choices = tuple(
        Guess(name, min(1.0, score), (table.columns[name].describe(), *reasons))
        for name, (score, reasons) in candidates[:5]
    )
    if not choices:
        choices = tuple(Guess(name, 0.0, (column.describe(),)) for name, column in list(table.columns.items())[:8])
    return Question(key, what, choices)


def id_score(column: Column, meaning: str) -> Score:
    """Score a column as the id of a ``user`` or an ``item``, using only its name and values."""
    if not column.identifier:
        return 0.0, ()
    other = "item" if meaning == "user" else "user"
    score, reasons = 0.1, ["its values can be ids"]
    if meaning in column.means:
        score += 0.5
        reasons.append(f"its name suggests {'an item' if meaning == 'item' else 'a user'}")
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
    """Score a column as the time of an event. A column that is empty in most rows is probably the time of something
    else."""
    score, reasons = _time_score(column)
    return (score if column.present >= 0.5 * column.rows else 0.4 * score), reasons


def _time_score(column: Column) -> Score:
    column = column.understood
    named = "time" in column.means
    if column.kind == "time":
        return (
            (0.95, ("its values are dates", "its name suggests a time")) if named else (0.75, ("its values are dates",))
        )
    if column.units == ("excel",):
        return 0.6, ("its values are spreadsheet serial days", "its name suggests a time")
    if column.kind in ("integer", "number") and column.units:
        return (
            (0.9, (f"its values are times in {column.units[0]}", "its name suggests a time"))
            if named
            else (0.5, (f"its values could be times in {column.units[0]}",))
        )
    if column.kind == "integer" and column.formats:
        return (
            (0.85, ("its values are dates written as numbers", "its name suggests a time"))
            if named
            else (0.45, ("its values could be dates written as numbers",))
        )
    return 0.0, ()


DESCRIBING = (
    "description descriptions desc describing about abstract summary synopsis overview plot blurb details text "
    "beschreibung produktbeschreibung artikelbeschreibung langtext inhalt descripción descripcion resumen descrizione riassunto descrição descricao "
    "résumé resume omschrijving opis описание 描述 简介 详情 介绍 説明 설명"
)
"""Words in the names of columns with longer texts about items."""
DESCRIBED_FROM, LONG_FROM = 25, 80
"""Smallest mean number of characters in a column of descriptions: with a name that suggests a description, and with any
other name."""
MOSTLY_SENTENCES, OWN_TEXTS = 0.5, 0.3
"""For a column of descriptions: smallest share of texts that contain a space, and smallest number of distinct texts per
item."""


def title_score(column: Column) -> Score:
    """Score a column as the text that names an item."""
    if column.kind != "text" or column.distinct < 2:
        return 0.0, ()
    score, reasons = 0.0, []
    if "title" in column.means and "user" not in column.means:
        score += 0.5
        reasons.append("its name suggests a title")
        if column.means & {"category", "id"}:
            score -= 0.25
    elif column.means & {"user", "category", "time", "price", "action", "id"}:
        score -= 0.2
    if 4 <= column.characters <= 150:
        score += 0.15 + 0.15 * (column.spaces > 0.3)
        reasons.append(f"texts of {column.characters:.0f} characters")
    if column.unique > 0.5:
        score += 0.2
        reasons.append("more than half of its texts are distinct")
    return score, tuple(reasons)


def description_score(column: Column, items: int) -> Score:
    """Score a column of longer texts as the description of items. ``items`` is the number of items."""
    named, repeated = says(column.name, DESCRIBING), column.distinct < max(2, OWN_TEXTS * items)
    if column.kind != "text" or column.spaces < MOSTLY_SENTENCES or repeated or "category" in column.means:
        return 0.0, ()
    if column.characters < (DESCRIBED_FROM if named else LONG_FROM):
        return 0.0, ()
    reasons = [f"texts of {column.characters:.0f} characters"]
    if named:
        reasons.append("its name suggests a description")
    return (0.9 if named else 0.6), (*reasons, "prompts and text_match use it only if a setting says so (docs/data.md)")


def price_score(column: Column) -> Score:
    """Score a column as a price."""
    column = column.understood
    if (
        column.kind not in ("number", "integer")
        or "price" not in column.means
        or column.negative > (1 - MOST_NUMBERS) * column.present
    ):
        return 0.0, ()
    reasons = ["its name suggests a price", "its values are numbers of at least 0"]
    if column.negative:
        reasons[1] = f"nearly all of its values are numbers of at least 0 ({column.negative:,} are negative)"
    if column.form != PLAIN:
        reasons.append(f"written as {column.form}")
    sure = 0.5 if len(column.forms) > 1 else 0.85 if column.kind == "number" else 0.7
    return min(sure, 0.75) if column.broken else sure, tuple(reasons)


def says_price(column: Column) -> bool:
    """Return True if a column of texts or numbers has a name that suggests a price and nothing else."""
    return "price" in column.means and not column.means - {"price"} and column.kind in ("text", "number", "integer")


def joined_by(table: Table, column: Column, separators: Sequence[str]) -> str | None:
    """Return the first separator that occurs in at least half of the values of a text column; None if there is none."""
    values = table.frame[column.name].drop_nulls().head(2000)
    shares = (float(values.str.contains(one, literal=True).mean() or 0.0) for one in separators)  # type: ignore[arg-type]
    return next((one for one, share in zip(separators, shares) if share >= 0.5), None)


def _joined(column: Column, separator: str, confidence: float) -> Guess:
    value, reason = {"column": column.name, "separator": separator}, f"levels joined by {separator!r}"
    return Guess(value, confidence, (reason,), column=column.name)


def categories(table: Table, columns: list[Column]) -> dict[str, Guess]:
    """Propose category levels: one column with all of them, or one column per level, the coarsest first.

    At most three columns are proposed if no name suggests a category.
    """
    for column in columns:
        if column.kind == "list" and "category" in column.means:
            return {
                "categories": Guess(
                    {"column": column.name},
                    0.8,
                    ("each row holds a list, and the name suggests a category",),
                    column=column.name,
                )
            }
        if column.name in table.sequences and column.kind == "text" and "category" in column.means:
            reason = "the header declares several values in each row"
            return {"categories": Guess({"column": column.name, "separator": " "}, 0.8, (reason,), column=column.name)}
        if column.kind == "text" and "category" in column.means and (separator := joined_by(table, column, SEPARATED)):
            return {"categories": _joined(column, separator, 0.8)}
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
    if not named:
        for column in sorted(few, key=lambda column: (column.distinct, column.name)):
            if separator := joined_by(table, column, UNMISTAKABLE):
                return {"categories": _joined(column, separator, 0.6)}
    chosen = sorted(named or few, key=lambda column: (column.distinct, column.name))[: None if named else 3]
    if named:  # names determine the coarsest levels, values the finer ones
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
            else ["its name suggests a category" if named else f"text with only {column.distinct} distinct values"]
        )
        if place and nests(table, chosen[place - 1].name, column.name):
            reasons.append(f"each value belongs to one value of {chosen[place - 1].name}")
        guesses[f"category_l{place + 1}"] = Guess(
            column.name, 0.85 if column in named else 0.6 if named else 0.45, tuple(reasons)
        )
    return guesses
