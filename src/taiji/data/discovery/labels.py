"""Rules of click and conversion, told from flags, an action's name or a rating."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import polars as pl

from taiji.data.discovery.columns import Column
from taiji.data.discovery.table_files import Table
from taiji.data.discovery.words import action


@dataclass(frozen=True)
class Labels:
    """Rules for the mapping, and why.

    Attributes:
        click, conversion: rules; ``conversion`` None when the log knows none.
        reasons: key (``click``, ``conversion``) to sentences.
        confidence: key to 0…1.
        doubts: sentences about what the values do not tell.
        columns: columns that the rules read.
        all_clicks: no row is without a click.
    """

    click: str | int
    conversion: str | None
    reasons: Mapping[str, tuple[str, ...]]
    confidence: Mapping[str, float]
    doubts: tuple[str, ...]
    columns: tuple[str, ...]
    all_clicks: bool


def labels(table: Table, taken: set[str]) -> Labels:
    """Propose rules for a log's labels.

    Args:
        table: the log.
        taken: columns that play another part.
    """
    columns = [column for column in table.columns.values() if column.name not in taken]
    flags = [column for column in columns if column.kind == "flag"]
    click = next((column for column in flags if "click" in column.means), None)
    bought = next((column for column in flags if "conversion" in column.means and column is not click), None)
    if click or bought:
        return _of_flags(table, click, bought)
    actions = [
        column
        for column in columns
        if column.values
        and column.kind == "text"
        and (known := [action(value) for value in column.values])
        and sum(kind is not None for kind in known) >= 0.5 * len(known)
    ]
    if actions:
        actions.sort(key=lambda column: ("action" not in column.means, column.name))
        return _of_actions(actions[0])
    rating = next(
        (
            column
            for column in columns
            if column.kind in ("integer", "number")
            and "rating" in column.means
            and column.high is not None
            and column.distinct <= 101
        ),
        None,
    )
    if rating is not None:
        return _of_rating(rating)
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


def _ones(table: Table, column: Column) -> pl.Series:
    values = table.frame[column.name]
    if values.dtype == pl.String:
        return values.str.strip_chars().str.to_lowercase().is_in(["1", "1.0", "true", "yes"])
    return values.cast(pl.Float64) == 1


def _of_flags(table: Table, click: Column | None, bought: Column | None) -> Labels:
    if click is None:
        assert bought is not None
        if bool(_ones(table, bought).all()):
            return Labels(
                1,
                bought.name,
                {
                    "click": (f"every row has {bought.name} = 1",),
                    "conversion": (f"{bought.name} is a flag by name and values",),
                },
                {"click": 0.7, "conversion": 0.7},
                (),
                (bought.name,),
                True,
            )
        doubt = f"{bought.name} is the log's only label and serves as click (the row's success); nothing is known of what came after it, so there is no conversion."
        return Labels(
            bought.name,
            None,
            {"click": (f"{bought.name} is the only flag that tells a success",)},
            {"click": 0.7},
            (doubt,),
            (bought.name,),
            False,
        )
    clicked = _ones(table, click)
    doubts: list[str] = []
    if bought is None:
        return Labels(
            click.name,
            None,
            {"click": (f"{click.name} is a flag by name and values",)},
            {"click": 0.95},
            (),
            (click.name,),
            bool(clicked.all()),
        )
    lonely = int((_ones(table, bought) & ~clicked).sum())
    if lonely:
        doubts.append(
            f"{lonely:,} rows have {bought.name} without {click.name}; a conversion counts only with a click, and the check will name these rows: correct them."
        )
    reasons = {
        "click": (f"{click.name} is a flag by name and values",),
        "conversion": (f"{bought.name} is a flag by name and values",),
    }
    return Labels(
        click.name,
        bought.name,
        reasons,
        {"click": 0.95, "conversion": 0.9},
        tuple(doubts),
        (click.name, bought.name),
        bool(clicked.all()),
    )


def _of_actions(column: Column) -> Labels:
    kinds = {value: action(value) for value in column.values}
    having = {
        kind: [value for value, found in kinds.items() if found == kind]
        for kind in ("shown", "view", "click", "middle", "buy", "back", None)
    }
    doubts = [f"{column.name} = {value!r} was not understood." for value in having[None]]
    doubts += [
        f"{column.name} = {value!r} undoes something; such rows count as clicks like the others. Leave them out of the file if they should not."
        for value in having["back"]
    ]
    shown = list(having["shown"])
    if not shown and having["click"] and having["view"]:
        shown = list(having["view"])
        doubts.append(
            f"Beside {', '.join(map(repr, having['click']))}, {column.name} = {', '.join(map(repr, shown))} was read as merely shown."
        )
    click: str | int = 1
    reason = f"no value of {column.name} means merely shown: every row is at least a click"
    positive = [value for value in column.values if value not in shown]
    if len(shown) == 1:
        click, reason = (
            f"{column.name} != {_quoted(shown[0])}",
            f"{column.name} = {shown[0]!r} means shown without a click",
        )
    elif shown and len(positive) == 1:
        click, reason = (
            f"{column.name} == {_quoted(positive[0])}",
            f"only {positive[0]!r} among the values of {column.name} is more than shown",
        )
    elif shown:
        doubts.append(
            f"Several values of {column.name} mean merely shown ({', '.join(shown)}); a rule compares with one. Give them one value in the file."
        )
    conversion, reasons, sure = None, {"click": (reason,)}, {"click": 0.85 if not doubts else 0.6}
    if len(having["buy"]) == 1 and (having["buy"] != positive or not shown):
        conversion = f"{column.name} == {_quoted(having['buy'][0])}"
        reasons["conversion"] = (f"{column.name} = {having['buy'][0]!r} is a purchase",)
        sure["conversion"] = 0.9
    elif len(having["buy"]) > 1:
        doubts.append(
            f"Several values of {column.name} mean a purchase ({', '.join(having['buy'])}); a rule compares with one, so none was taken."
        )
    return Labels(click, conversion, reasons, sure, tuple(doubts), (column.name,), click == 1)


def _quoted(value: str) -> str:
    return value if value.replace("_", "").isalnum() and not value.isdigit() else f"'{value}'"


def _of_rating(column: Column) -> Labels:
    assert column.high is not None and column.low is not None
    bar = column.low + 0.75 * (column.high - column.low)
    reasons = {
        "click": ("a rating is written by somebody who chose the item",),
        "conversion": (
            f"{column.name} runs from {column.low:g} to {column.high:g}; the top quarter of the range counts as success",
        ),
    }
    return Labels(1, f"{column.name} >= {bar:g}", reasons, {"click": 0.7, "conversion": 0.55}, (), (column.name,), True)
