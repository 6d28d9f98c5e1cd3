"""Infer rules for click and conversion from yes/no columns, names of actions, or ratings."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import polars as pl

from taiji.data.discovery.columns import FEW, Column
from taiji.data.discovery.label_columns import Meant, meant
from taiji.data.discovery.parts import Guess, Question
from taiji.data.discovery.table_files import Table
from taiji.data.discovery.trial import tried_label
from taiji.data.discovery.words import UNWANTED, action, label_named, says
from taiji.data.sources.label_rules import column_text, number_text, value_text

SELDOM = 0.01
"""Up to this share of all rows, rows with unknown actions are only reported. Above this share, the user is asked."""


@dataclass(frozen=True)
class Labels:
    """Rules for the labels of a log, with reasons.

    Attributes:
        click, conversion: rules; ``conversion`` is None if the log has no conversions.
        reasons: reasons by key (``click``, ``conversion``), as sentences.
        confidence: confidence by key, from 0 to 1.
        doubts: notes on ambiguous values, as sentences.
        columns: columns that the rules or the open questions mention.
        all_clicks: True if every row is a click.
        questions: open questions; their answers replace ``click`` or ``conversion``.
    """

    click: str | int
    conversion: str | None
    reasons: Mapping[str, tuple[str, ...]]
    confidence: Mapping[str, float]
    doubts: tuple[str, ...]
    columns: tuple[str, ...]
    all_clicks: bool
    questions: tuple[Question, ...] = field(default=())


def labels(table: Table, taken: set[str]) -> Labels:
    """Propose rules for the labels of a log.

    Args:
        table: the log.
        taken: columns that have another role.
    """
    columns = [column for column in table.columns.values() if column.name not in taken]
    click, bought = _first(table, columns, "click"), _first(table, columns, "conversion")
    if click or bought:
        return _from_label_columns(table, click, bought)
    actions = [column for column in columns if column.values and column.kind == "text" and _holds_actions(column)]
    if actions:
        actions.sort(key=lambda column: ("action" not in column.means, column.name))
        return _from_actions(table, actions[0])
    rating = next(
        (
            column.understood
            for column in columns
            if column.understood.kind in ("integer", "number")
            and "rating" in column.means
            and column.understood.high is not None
            and column.understood.distinct <= 101
        ),
        None,
    )
    if rating is not None:
        return _from_rating(rating)
    if (general := _first(table, columns, "label")) is not None:
        return _from_label_columns(table, general, None)
    codes = [
        column
        for column in columns
        if label_named(column.name) == "action"
        and column.kind in ("text", "integer", "flag")
        and 2 <= column.distinct <= FEW
    ]
    if codes:
        return _ask_about_codes(codes[0])
    flags = [column for column in columns if column.understood.kind == "flag" and not says(column.name, UNWANTED)]
    unnamed = tuple(
        f"{column.name} holds 0 and 1 (or true and false), but its name does not say whether it is a click or a conversion."
        for column in flags
    )
    return Labels(
        1,
        None,
        {"click": ("no column indicates clicks: every row is a click",)},
        {"click": 0.6 if not flags else 0.3},
        unnamed,
        (),
        True,
    )


def _first(table: Table, columns: list[Column], meaning: str) -> Meant | None:
    """Return the interpretation of the best column for a label; None if no column is a candidate.

    A candidate is a column whose name denotes only this label, or a flag whose name suggests this label among other
    meanings. A candidate that gives a rule takes precedence over one that raises a question.
    """
    strict = [column for column in columns if label_named(column.name) == meaning]
    flags = [
        column
        for column in columns
        if column not in strict
        and column.understood.kind == "flag"
        and meaning in column.means
        and not says(column.name, UNWANTED)
    ]
    readings = [found for column in (*strict, *flags) if (found := meant(table, column, meaning)) is not None]
    readings.sort(key=lambda found: found.rule is None)  # columns with a rule first, then columns with an open question
    return readings[0] if readings else None


def _holds_actions(column: Column) -> bool:
    known = [action(value) for value in column.values]
    return sum(kind is not None for kind in known) >= 0.5 * len(known)


def _from_label_columns(table: Table, click: Meant | None, bought: Meant | None) -> Labels:
    """Return rules from columns that hold the labels themselves."""
    questions = tuple(found.question for found in (click, bought) if found is not None and found.question)
    columns = tuple(name for found in (click, bought) if found is not None for name in found.columns)
    doubts = [doubt for found in (click, bought) if found is not None for doubt in found.doubts]
    reasons: dict[str, tuple[str, ...]] = {
        key: (found.reason,) for key, found in (("click", click), ("conversion", bought)) if found and found.rule
    }
    sure = {key: found.confidence for key, found in (("click", click), ("conversion", bought)) if found and found.rule}
    conversion = bought.rule if bought else None
    if click is None:
        assert bought is not None
        if bought.rule is None:
            reasons["click"], sure["click"] = ("no column indicates clicks: every row is a click",), 0.6
            return Labels(1, None, reasons, sure, tuple(doubts), columns, True, questions)
        if _all_positive(tried_label(table, bought.rule)):
            reasons["click"], sure["click"] = (f"every row has {bought.rule} = 1",), 0.7
            return Labels(1, conversion, reasons, {**sure, "conversion": 0.7}, tuple(doubts), columns, True)
        doubt = f"The log has no column of clicks, so {bought.columns[0]} is used as the click (the success of a row). No later outcome is logged, so there are no conversions."
        only = {"click": (f"{bought.columns[0]} indicates a success, and no column indicates clicks",)}
        return Labels(bought.rule, None, only, {"click": 0.7}, (*doubts, doubt), columns, False)
    if click.rule is None:
        return Labels(1, conversion, reasons, sure, tuple(doubts), columns, False, questions)
    clicked, rule = tried_label(table, click.rule), click.rule
    if conversion is not None:
        lonely = int(((tried_label(table, conversion) == 1) & (clicked != 1)).sum())
        if lonely:
            rule = f"{click.rule} or {conversion}"
            reasons["click"] = (*reasons["click"], f"and {conversion} is treated as a click too")
            sure["click"] = min(sure["click"], 0.75)
            doubts.append(
                f"{lonely:,} rows have {conversion} without {click.rule}. A conversion requires a click, so these rows are treated as clicks. If that is wrong, correct them in the file."
            )
            clicked = tried_label(table, rule)
    return Labels(rule, conversion, reasons, sure, tuple(doubts), columns, _all_positive(clicked), questions)


def _all_positive(label: pl.Series) -> bool:
    return bool((label.drop_nulls() == 1).all())


def _from_actions(table: Table, column: Column) -> Labels:
    kinds = {value: action(value) for value in column.values}
    values_of = {
        kind: [value for value, found in kinds.items() if found == kind]
        for kind in ("shown", "view", "click", "middle", "buy", "against", "back", None)
    }
    name = column_text(column.name)
    doubts = [
        f"{column.name} = {value!r} reverts an earlier action, but these rows are treated as clicks. If that is wrong, remove them from the file."
        for value in values_of["back"]
    ]
    if values_of["against"]:
        doubts.append(
            f"{column.name} = {', '.join(map(repr, values_of['against']))} means shown and rejected: it is not a click."
        )
    shown = [*values_of["shown"], *values_of["against"]]
    if not values_of["shown"] and values_of["click"] and values_of["view"]:
        shown += values_of["view"]
        doubts.append(
            f"{column.name} = {', '.join(map(repr, values_of['view']))} is treated as shown without a click, because {', '.join(map(repr, values_of['click']))} also occurs."
        )
    positive = [value for value in column.values if value not in shown]
    certain = [value for value in positive if value not in (*values_of[None], *values_of["back"])]
    click: str | int = 1
    reason = f"no value of {column.name} marks a mere exposure, so every row counts as a click"
    if shown and len(positive) == 1 and len(shown) > 1:
        click, reason = (
            f"{name} == {value_text(positive[0])}",
            f"{positive[0]!r} is the only value of {column.name} that marks an action",
        )
    elif shown:
        click, reason = (
            _none_of(name, shown),
            f"{column.name} = {', '.join(map(repr, shown))} means shown without a click",
        )
    conversion, reasons, sure = None, {"click": (reason,)}, {"click": 0.85 if not doubts else 0.6}
    if values_of["buy"] and (values_of["buy"] != positive or not shown):
        conversion = _one_of(name, values_of["buy"])
        reasons["conversion"] = (f"{column.name} = {', '.join(map(repr, values_of['buy']))} is a purchase",)
        sure["conversion"] = 0.9
    questions: tuple[Question, ...] = ()
    if values_of[None]:
        texts = table.frame[column.name].cast(pl.String).str.strip_chars()
        rows = int(texts.is_in(values_of[None]).sum())
        unknown = ", ".join(map(repr, values_of[None]))
        if rows <= SELDOM * len(texts):
            doubts.append(f"{column.name} = {unknown} ({rows:,} rows) is unknown; these rows are treated as clicks.")
        else:
            choices = [Guess(click, 0.5, (f"{unknown} are clicks",))]
            if certain:
                choices.append(Guess(_one_of(name, certain), 0.5, (f"{unknown} are not clicks",)))
            else:  # no other value is a click, so one of these must be
                choices += [Guess(_one_of(name, [value]), 0.4, ("only these rows",)) for value in values_of[None]]
            questions = (
                Question(
                    "events.click",
                    f"which rows are clicks: the meaning of {column.name} = {unknown} is unknown ({rows:,} rows; the other values are {', '.join(map(repr, [v for v in column.values if v not in values_of[None]]))})",
                    tuple(choices),
                ),
            )
    return Labels(click, conversion, reasons, sure, tuple(doubts), (column.name,), click == 1, questions)


def _one_of(column: str, values: list[str]) -> str:
    if len(values) == 1:
        return f"{column} == {value_text(values[0])}"
    return f"{column} in ({', '.join(map(value_text, values))})"


def _none_of(column: str, values: list[str]) -> str:
    if len(values) == 1:
        return f"{column} != {value_text(values[0])}"
    return f"{column} not in ({', '.join(map(value_text, values))})"


def _ask_about_codes(column: Column) -> Labels:
    """Return questions about a behaviour column whose values are codes without a known meaning."""
    name = column_text(column.name)
    every = Guess(1, 0.3, ("every row is a click",))
    whole = column.kind == "integer"
    values = sorted(column.values, key=float) if whole else list(column.values)
    kinds = [
        Guess(f"{name} == {value}" if whole else _one_of(name, [value]), 0.3, ("only these rows",)) for value in values
    ]
    more = [
        Guess(f"{name} >= {value}" if whole else _none_of(name, [value]), 0.3, ("only these rows",))
        for value in (values[1:-1] if whole else values if len(values) > 2 else ())
    ]
    none = Guess("null", 0.3, ("the log has no conversions",))
    content = f"{column.name} is named like a kind of event, but the meaning of its values ({', '.join(column.values)}) is unknown"
    questions = (
        Question("events.click", f"which rows are clicks: {content}", (every, *kinds, *more)),
        Question("events.conversion", f"which rows are conversions (purchases): {content}", (*kinds, none)),
    )
    return Labels(1, None, {}, {}, (), (column.name,), False, questions)


def _from_rating(column: Column) -> Labels:
    assert column.high is not None and column.low is not None
    bar = column.low + 0.75 * (column.high - column.low)
    reasons = {
        "click": ("a rating implies that the user chose the item",),
        "conversion": (
            f"{column.name} runs from {column.low:g} to {column.high:g}; the top quarter of the range is a success",
        ),
    }
    rule = f"{column_text(column.name)} >= {number_text(float(format(bar, '.12g')))}"
    doubts = (
        (
            f"{column.name} is 0 in {column.zeros:,} of {column.present:,} rows, which is treated as a low rating. If 0 means that there is no rating, empty these cells.",
        )
        if column.low == 0 and column.zeros > 0.2 * column.present
        else ()
    )
    return Labels(1, rule, reasons, {"click": 0.7, "conversion": 0.55}, doubts, (column.name,), True)
