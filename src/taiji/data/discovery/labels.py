"""Rules of click and conversion, inferred from columns of yes and no, an action's name or a rating."""

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
from taiji.data.sources.label_rules import column_text, value_text

SELDOM = 0.01
"""Largest share of rows up to which unknown actions are reported rather than asked about."""


@dataclass(frozen=True)
class Labels:
    """Rules for the mapping, and why.

    Attributes:
        click, conversion: rules; ``conversion`` is None if the log has none.
        reasons: key (``click``, ``conversion``) to sentences.
        confidence: key to 0…1.
        doubts: sentences about ambiguous values.
        columns: columns that the rules read, and those of open questions.
        all_clicks: no row is without a click.
        questions: open questions; ``click`` and ``conversion`` then hold apart from the answer.
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
    """Propose rules for a log's labels.

    Args:
        table: the log.
        taken: columns with another role.
    """
    columns = [column for column in table.columns.values() if column.name not in taken]
    click, bought = _first(table, columns, "click"), _first(table, columns, "conversion")
    if click or bought:
        return _of_columns(table, click, bought)
    actions = [column for column in columns if column.values and column.kind == "text" and _acts(column)]
    if actions:
        actions.sort(key=lambda column: ("action" not in column.means, column.name))
        return _of_actions(table, actions[0])
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
        return _of_rating(rating)
    if (general := _first(table, columns, "label")) is not None:
        return _of_columns(table, general, None)
    codes = [
        column
        for column in columns
        if label_named(column.name) == "action"
        and column.kind in ("text", "integer", "flag")
        and 2 <= column.distinct <= FEW
    ]
    if codes:
        return _of_codes(codes[0])
    flags = [column for column in columns if column.understood.kind == "flag" and not says(column.name, UNWANTED)]
    unnamed = tuple(
        f"{column.name} is 0 or 1 (or true, false), but its name does not say whether it is a click or a conversion."
        for column in flags
    )
    return Labels(
        1,
        None,
        {"click": ("no column tells a click: every row counts as one",)},
        {"click": 0.6 if not flags else 0.3},
        unnamed,
        (),
        True,
    )


def _first(table: Table, columns: list[Column], meaning: str) -> Meant | None:
    """Return the first label column: one whose name means only that, or a flag whose name includes it."""
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
    readings.sort(key=lambda found: found.rule is None)  # understood columns first, then those with an open question
    return readings[0] if readings else None


def _acts(column: Column) -> bool:
    known = [action(value) for value in column.values]
    return sum(kind is not None for kind in known) >= 0.5 * len(known)


def _of_columns(table: Table, click: Meant | None, bought: Meant | None) -> Labels:
    """Return rules from columns that are labels themselves."""
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
            reasons["click"], sure["click"] = ("no column tells a click: every row counts as one",), 0.6
            return Labels(1, None, reasons, sure, tuple(doubts), columns, True, questions)
        if _all(tried_label(table, bought.rule)):
            reasons["click"], sure["click"] = (f"every row has {bought.rule} = 1",), 0.7
            return Labels(1, conversion, reasons, {**sure, "conversion": 0.7}, tuple(doubts), columns, True)
        doubt = f"{bought.columns[0]} is the log's only label and serves as click (the row's success); nothing is known of what came after it, so there is no conversion."
        only = {"click": (f"{bought.columns[0]} is the only column that tells a success",)}
        return Labels(bought.rule, None, only, {"click": 0.7}, (*doubts, doubt), columns, False)
    if click.rule is None:
        return Labels(1, conversion, reasons, sure, tuple(doubts), columns, False, questions)
    clicked, rule = tried_label(table, click.rule), click.rule
    if conversion is not None:
        lonely = int(((tried_label(table, conversion) == 1) & (clicked != 1)).sum())
        if lonely:
            rule = f"{click.rule} or {conversion}"
            reasons["click"] = (*reasons["click"], f"and {conversion} counts as a click too")
            sure["click"] = min(sure["click"], 0.75)
            doubts.append(
                f"{lonely:,} rows have {conversion} without {click.rule}; a conversion counts only with a click, so these rows count as clicks too. Correct them in the file if they should not."
            )
            clicked = tried_label(table, rule)
    return Labels(rule, conversion, reasons, sure, tuple(doubts), columns, _all(clicked), questions)


def _all(label: pl.Series) -> bool:
    return bool((label.drop_nulls() == 1).all())


def _of_actions(table: Table, column: Column) -> Labels:
    kinds = {value: action(value) for value in column.values}
    having = {
        kind: [value for value, found in kinds.items() if found == kind]
        for kind in ("shown", "view", "click", "middle", "buy", "against", "back", None)
    }
    name = column_text(column.name)
    doubts = [
        f"{column.name} = {value!r} undoes something; such rows count as clicks like the others. Leave them out of the file if they should not."
        for value in having["back"]
    ]
    if having["against"]:
        doubts.append(
            f"{column.name} = {', '.join(map(repr, having['against']))} was read as shown and turned down: not a click."
        )
    shown = [*having["shown"], *having["against"]]
    if not having["shown"] and having["click"] and having["view"]:
        shown += having["view"]
        doubts.append(
            f"Beside {', '.join(map(repr, having['click']))}, {column.name} = {', '.join(map(repr, having['view']))} was read as merely shown."
        )
    positive = [value for value in column.values if value not in shown]
    certain = [value for value in positive if value not in (*having[None], *having["back"])]
    click: str | int = 1
    reason = f"no value of {column.name} means merely shown: every row is at least a click"
    if shown and len(positive) == 1 and len(shown) > 1:
        click, reason = (
            f"{name} == {value_text(positive[0])}",
            f"only {positive[0]!r} among the values of {column.name} is more than shown",
        )
    elif shown:
        click, reason = (
            _unless(name, shown),
            f"{column.name} = {', '.join(map(repr, shown))} means shown without a click",
        )
    conversion, reasons, sure = None, {"click": (reason,)}, {"click": 0.85 if not doubts else 0.6}
    if having["buy"] and (having["buy"] != positive or not shown):
        conversion = _among(name, having["buy"])
        reasons["conversion"] = (f"{column.name} = {', '.join(map(repr, having['buy']))} is a purchase",)
        sure["conversion"] = 0.9
    questions: tuple[Question, ...] = ()
    if having[None]:
        texts = table.frame[column.name].cast(pl.String).str.strip_chars()
        rows = int(texts.is_in(having[None]).sum())
        said = ", ".join(map(repr, having[None]))
        if rows <= SELDOM * len(texts):
            doubts.append(f"{column.name} = {said} ({rows:,} rows) was not understood; such rows count as clicks.")
        else:
            choices = [Guess(click, 0.5, (f"{said} count as clicks",))]
            if certain:
                choices.append(Guess(_among(name, certain), 0.5, (f"{said} do not count as clicks",)))
            else:  # nothing else is a click: one of these must be
                choices += [Guess(_among(name, [value]), 0.4, ("these are",)) for value in having[None]]
            questions = (
                Question(
                    "events.click",
                    f"which rows are clicks: {column.name} = {said} was not understood ({rows:,} rows; the other values are {', '.join(map(repr, [v for v in column.values if v not in having[None]]))})",
                    tuple(choices),
                ),
            )
    return Labels(click, conversion, reasons, sure, tuple(doubts), (column.name,), click == 1, questions)


def _among(column: str, values: list[str]) -> str:
    if len(values) == 1:
        return f"{column} == {value_text(values[0])}"
    return f"{column} in ({', '.join(map(value_text, values))})"


def _unless(column: str, values: list[str]) -> str:
    if len(values) == 1:
        return f"{column} != {value_text(values[0])}"
    return f"{column} not in ({', '.join(map(value_text, values))})"


def _of_codes(column: Column) -> Labels:
    """Return questions about a behaviour column with meaningless values."""
    name = column_text(column.name)
    every = Guess(1, 0.3, ("every row is a click",))
    whole = column.kind == "integer"
    values = sorted(column.values, key=int) if whole else list(column.values)
    kinds = [Guess(f"{name} == {value}" if whole else _among(name, [value]), 0.3, ("these are",)) for value in values]
    more = [
        Guess(f"{name} >= {value}" if whole else _unless(name, [value]), 0.3, ("these are",))
        for value in (values[1:-1] if whole else values if len(values) > 2 else ())
    ]
    none = Guess("null", 0.3, ("the log knows no conversions",))
    said = f"{column.name} must tell it by its name, and its values ({', '.join(column.values)}) do not say how"
    questions = (
        Question("events.click", f"which rows are clicks: {said}", (every, *kinds, *more)),
        Question("events.conversion", f"which rows are conversions (purchases): {said}", (*kinds, none)),
    )
    return Labels(1, None, {}, {}, (), (column.name,), False, questions)


def _of_rating(column: Column) -> Labels:
    assert column.high is not None and column.low is not None
    bar = column.low + 0.75 * (column.high - column.low)
    reasons = {
        "click": ("a rating is written by somebody who chose the item",),
        "conversion": (
            f"{column.name} runs from {column.low:g} to {column.high:g}; the top quarter of the range counts as success",
        ),
    }
    rule = f"{column_text(column.name)} >= {bar:g}"
    doubts = (
        (
            f"{column.name} is 0 in {column.zeros:,} of {column.present:,} rows: if 0 means that nothing was rated, empty these cells; as they are they count as a low rating.",
        )
        if column.low == 0 and column.zeros > 0.2 * column.present
        else ()
    )
    return Labels(1, rule, reasons, {"click": 0.7, "conversion": 0.55}, doubts, (column.name,), True)
