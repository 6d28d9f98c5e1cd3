"""Columns that are labels by name: the rule suggested by their values, or an open question."""

from __future__ import annotations

from dataclasses import dataclass

from taiji.data.discovery.columns import FEW, Column
from taiji.data.discovery.parts import Guess, Question
from taiji.data.discovery.table_files import Table
from taiji.data.discovery.words import LABELS, action, label_named, negated, parts
from taiji.data.sources.label_rules import column_text, value_text
from taiji.data.sources.truth_cells import Truth, read_truth, understood

KEYS = {"click": "events.click", "conversion": "events.conversion", "label": "events.click"}
SAID = {"click": "which rows are clicks", "conversion": "which rows are conversions", "label": "which rows are clicks"}


@dataclass(frozen=True)
class Meant:
    """Interpretation of a label's column.

    Attributes:
        columns: those of the rule or question.
        rule: for the mapping; None if a question is open.
        confidence: 0…1.
        reason: why.
        question: the open question.
        doubts: further notes.
    """

    columns: tuple[str, ...]
    rule: str | None
    confidence: float
    reason: str
    question: Question | None = None
    doubts: tuple[str, ...] = ()


def meant(table: Table, column: Column, meaning: str) -> Meant | None:
    """Return how a column whose name means a label (``click``, ``conversion``, or in general ``label``) is read; None if it is not a label."""
    name, against = column_text(column.name), negated(column.name, LABELS[meaning])
    truth = read_truth(table.frame[column.name])
    if understood(truth):
        return _of_truth(column, truth, meaning, f"not {name}" if against else name)
    facts = column.understood
    if facts.kind in ("integer", "number") and len(facts.forms) == 1:
        return _of_numbers(column, facts, meaning, against)
    if column.kind == "text" and column.values:
        return _of_texts(column, meaning, against)
    if label_named(column.name) != meaning:
        return None
    return _open(column, meaning, (), f"none of its values says yes or no ({column.describe()})")


def _of_truth(column: Column, truth: Truth, meaning: str, rule: str) -> Meant:
    values = f"0 and 1 (or words for no and yes): {', '.join(column.values[:4])}"
    sure = {"click": 0.95, "conversion": 0.9, "label": 0.6}[meaning]
    doubts = []
    if column.understood.broken:
        doubts.append(f"{column.understood.told_broken()}: no label in these rows.")
    if meaning == "label":
        doubts.append(f"{column.name} is the log's only label and serves as click (the row's success).")
    if truth.mark:
        reason = f"{column.name} is a label by name; {truth.mark!r} means yes and nothing means no"
        return Meant((column.name,), rule, min(sure, 0.8), reason, doubts=tuple(doubts))
    if truth.sides == {True} and truth.empty:
        there = f"{column_text(column.name)} is not null" if not rule.startswith("not ") else f"{rule[4:]} is null"
        choices = (
            Guess(there, 0.5, ("an empty cell means no",)),
            Guess(rule, 0.5, (f"an empty cell means that it is not known ({truth.empty:,} rows)",)),
        )
        said = f"it holds only {', '.join(column.values)} and {truth.empty:,} empty cells"
        return _open(column, meaning, choices, said, tuple(doubts))
    if rule.startswith("not "):
        return Meant(
            (column.name,),
            rule,
            min(sure, 0.8),
            f"{column.name} denies it by name; its values are {values}",
            doubts=tuple(doubts),
        )
    return Meant(
        (column.name,),
        rule,
        sure,
        f"{column.name} is a label by name and its values are {values}",
        doubts=tuple(doubts),
    )


def _of_numbers(column: Column, facts: Column, meaning: str, against: bool) -> Meant | None:
    name = column_text(column.name)
    values = {float(value) for value in facts.values} if facts.values and facts.kind == "integer" else set()
    low, high = facts.low or 0.0, facts.high or 0.0
    if values == {-1.0, 1.0}:
        rule, reason, sure = f"{name} == {-1 if against else 1}", "its values are -1 and 1", 0.75
    elif low == 0 and facts.zeros and parts(column.name) == ["order"]:  # a count of orders, or a place in a list
        return _open(
            column, meaning, (Guess(f"{name} > 0", 0.4, ("it counts orders",)),), f"it counts from 0 to {high:g}"
        )
    elif low == 0 and facts.zeros and label_named(column.name) == meaning and meaning != "label":
        rule, reason = (
            f"{name} {'==' if against else '>'} 0",
            f"it counts from {low:g} to {high:g}, 0 where nothing happened",
        )
        sure = 0.8 if facts.kind == "integer" else 0.6
    elif label_named(column.name) != meaning:
        return None
    else:
        choices: tuple[Guess, ...] = ()
        if 2 <= len(values) <= 6 and facts.form == "1234.50":
            choices = tuple(Guess(f"{name} == {value:g}", 0.4, (f"{value:g} means yes",)) for value in sorted(values))
        elif len(values) > 6 or low < 0:
            choices = (Guess(f"{name} > 0", 0.4, ("every number above 0 means yes",)),)
        elif facts.distinct > FEW and low > 0:  # an order's number, an amount
            return None
        return _open(column, meaning, choices, f"its values are neither 0 and 1 nor counts from 0 ({facts.describe()})")
    return Meant((column.name,), rule, sure, f"{column.name} is a label by name; {reason}")


def _of_texts(column: Column, meaning: str, against: bool) -> Meant | None:
    """Interpret a label's column of words such as ``clicked`` and ``not clicked``."""
    kinds = {value: action(value) for value in column.values}
    yes = [value for value, kind in kinds.items() if kind in ("click", "buy", "middle", "view")]
    no = [value for value, kind in kinds.items() if kind in ("shown", "against", "back")]
    name = column_text(column.name)
    if len(yes) == 1 and len(yes) + len(no) == len(kinds) and no and not against:
        reason = f"{column.name} is a label by name, and of its values {yes[0]!r} says that it happened"
        return Meant((column.name,), f"{name} == {value_text(yes[0])}", 0.8, reason)
    if label_named(column.name) != meaning:
        return None
    choices = tuple(
        Guess(f"{name} == {value_text(value)}", 0.4, (f"{value!r} means yes",)) for value in column.values[:8]
    )
    return _open(
        column, meaning, choices, f"its values do not say which of them means yes ({', '.join(column.values)})"
    )


def _open(column: Column, meaning: str, choices: tuple[Guess, ...], said: str, doubts: tuple[str, ...] = ()) -> Meant:
    last = (
        Guess("null", 0.2, (f"no row is; {column.name} is left out",))
        if meaning == "conversion"
        else Guess(1, 0.2, (f"every row is; {column.name} is left out",))
    )
    question = Question(
        KEYS[meaning], f"{SAID[meaning]}: {column.name} must tell it by its name, and {said}", (*choices, last)
    )
    return Meant((column.name,), None, 0.0, "", question, doubts)
