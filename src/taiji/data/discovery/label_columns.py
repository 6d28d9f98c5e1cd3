"""Interpret columns that are named like labels: suggest a rule from their values, or ask a question."""

from __future__ import annotations

from dataclasses import dataclass

from taiji.data.discovery.columns import FEW, Column
from taiji.data.discovery.parts import Guess, Question
from taiji.data.discovery.table_files import Table
from taiji.data.discovery.words import LABELS, action, label_named, negated, parts
from taiji.data.sources.label_rules import column_text, number_text, value_text
from taiji.data.sources.truth_cells import Truth, read_truth, understood

KEYS = {"click": "events.click", "conversion": "events.conversion", "label": "events.click"}
ASKED = {"click": "which rows are clicks", "conversion": "which rows are conversions", "label": "which rows are clicks"}


@dataclass(frozen=True)
class Meant:
    """Interpretation of a column that is named like a label.

    Attributes:
        columns: columns that the rule or the question mentions.
        rule: rule for the mapping; None if a question is open.
        confidence: confidence in the rule, from 0 to 1.
        reason: reason for the rule.
        question: question to the user, if the values are ambiguous.
        doubts: further notes, as sentences.
    """

    columns: tuple[str, ...]
    rule: str | None
    confidence: float
    reason: str
    question: Question | None = None
    doubts: tuple[str, ...] = ()


def meant(table: Table, column: Column, meaning: str) -> Meant | None:
    """Interpret a column whose name suggests ``meaning``: ``click``, ``conversion``, or ``label`` for an unspecified
    label.

    Returns:
        the interpretation; None if the column is not a label.
    """
    name, against = column_text(column.name), negated(column.name, LABELS[meaning])
    truth = read_truth(table.frame[column.name])
    if understood(truth):
        return _from_truth(column, truth, meaning, f"not {name}" if against else name)
    facts = column.understood
    if facts.kind in ("integer", "number") and len(facts.forms) == 1:
        return _from_numbers(column, facts, meaning, against)
    if column.kind == "text" and column.values:
        return _from_texts(column, meaning, against)
    if label_named(column.name) != meaning:
        return None
    return _ask(column, meaning, (), f"none of its values means yes or no ({column.describe()})")


def _from_truth(column: Column, truth: Truth, meaning: str, rule: str) -> Meant:
    values = f"0 and 1 (or words for no and yes): {', '.join(column.values[:4])}"
    sure = {"click": 0.95, "conversion": 0.9, "label": 0.6}[meaning]
    doubts = []
    if column.understood.broken:
        doubts.append(f"{column.understood.told_broken()}: these rows have no label.")
    if meaning == "label":
        doubts.append(
            f"The log has no column of clicks or conversions, so {column.name} is used as the click (the success of a row)."
        )
    if truth.mark:
        reason = f"{column.name} is named like a label; {truth.mark!r} means yes and an empty cell means no"
        return Meant((column.name,), rule, min(sure, 0.8), reason, doubts=tuple(doubts))
    if truth.sides == {True} and truth.empty:
        filled = f"{column_text(column.name)} is not null" if not rule.startswith("not ") else f"{rule[4:]} is null"
        choices = (
            Guess(filled, 0.5, ("an empty cell means no",)),
            Guess(rule, 0.5, (f"an empty cell means unknown ({truth.empty:,} rows)",)),
        )
        content = f"it holds only {', '.join(column.values)} and {truth.empty:,} empty cells"
        return _ask(column, meaning, choices, content, tuple(doubts))
    if rule.startswith("not "):
        return Meant(
            (column.name,),
            rule,
            min(sure, 0.8),
            f"the name of {column.name} contains a negation, and its values are {values}",
            doubts=tuple(doubts),
        )
    return Meant(
        (column.name,),
        rule,
        sure,
        f"{column.name} is named like a label and its values are {values}",
        doubts=tuple(doubts),
    )


def _from_numbers(column: Column, facts: Column, meaning: str, against: bool) -> Meant | None:
    name = column_text(column.name)
    values = {float(value) for value in facts.values} if facts.values and facts.kind == "integer" else set()
    low, high = facts.low or 0.0, facts.high or 0.0
    if values == {-1.0, 1.0}:
        rule, reason, sure = f"{name} == {-1 if against else 1}", "its values are -1 and 1", 0.75
    elif low == 0 and facts.zeros and parts(column.name) == ["order"]:  # a count of orders, or a position in a list
        return _ask(
            column,
            meaning,
            (Guess(f"{name} > 0", 0.4, ("it counts orders",)),),
            f"its values are counts from 0 to {high:g}",
        )
    elif low == 0 and facts.zeros and label_named(column.name) == meaning and meaning != "label":
        rule, reason = (
            f"{name} {'==' if against else '>'} 0",
            f"its values are counts from {low:g} to {high:g}, with 0 where nothing happened",
        )
        sure = 0.8 if facts.kind == "integer" else 0.6
    elif label_named(column.name) != meaning:
        return None
    else:
        choices: tuple[Guess, ...] = ()
        if 2 <= len(values) <= 6 and facts.form == "1234.50":
            choices = tuple(
                Guess(f"{name} == {number_text(value)}", 0.4, (f"{number_text(value)} means yes",))
                for value in sorted(values)
            )
        elif len(values) > 6 or low < 0:
            choices = (Guess(f"{name} > 0", 0.4, ("every number above 0 means yes",)),)
        elif facts.distinct > FEW and low > 0:  # the number of an order, or an amount
            return None
        said = (
            "it is unclear which of its values mean yes"
            if low == 0
            else "its values are neither 0 and 1 nor counts from 0"
        )
        return _ask(column, meaning, choices, f"{said} ({facts.describe()})")
    return Meant((column.name,), rule, sure, f"{column.name} is named like a label; {reason}")


def _from_texts(column: Column, meaning: str, against: bool) -> Meant | None:
    """Interpret a label column with words such as ``clicked`` and ``not clicked``."""
    kinds = {value: action(value) for value in column.values}
    yes = [value for value, kind in kinds.items() if kind in ("click", "buy", "middle", "view")]
    no = [value for value, kind in kinds.items() if kind in ("shown", "against", "back")]
    name = column_text(column.name)
    if len(yes) == 1 and len(yes) + len(no) == len(kinds) and no and not against:
        reason = f"{column.name} is named like a label, and {yes[0]!r} is its only positive value"
        return Meant((column.name,), f"{name} == {value_text(yes[0])}", 0.8, reason)
    if label_named(column.name) != meaning:
        return None
    choices = tuple(
        Guess(f"{name} == {value_text(value)}", 0.4, (f"{value!r} means yes",)) for value in column.values[:8]
    )
    return _ask(column, meaning, choices, f"it is unclear which of its values means yes ({', '.join(column.values)})")


def _ask(column: Column, meaning: str, choices: tuple[Guess, ...], content: str, doubts: tuple[str, ...] = ()) -> Meant:
    last = (
        Guess("null", 0.2, (f"no row is a conversion; {column.name} is not used",))
        if meaning == "conversion"
        else Guess(1, 0.2, (f"every row is a click; {column.name} is not used",))
    )
    question = Question(
        KEYS[meaning], f"{ASKED[meaning]}: {column.name} is named like a label, but {content}", (*choices, last)
    )
    return Meant((column.name,), None, 0.0, "", question, doubts)
