"""Propose further roles for the columns of a log: labels, context and display."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from taiji.core.yaml_files import yaml_line
from taiji.data.discovery.columns import Column
from taiji.data.discovery.parts import Guess
from taiji.data.discovery.relations import depends
from taiji.data.discovery.table_files import Table
from taiji.data.discovery.words import UNWANTED, action, parts, says
from taiji.data.event_columns import FIXED, INSIDE
from taiji.data.sources.label_rules import column_text, value_text
from taiji.data.sources.truth_cells import read_truth

NAMES = {
    "propensity": "propensity propensities pscore probability prob 倾向 概率",
    "position": "position pos rank slot rang platz 位置 排名 posición",
    "list_id": "request slate impression serp list listing 请求 列表",
    "duration": "duration dwell watch watched watchtime playtime play stay viewtime readtime listened dauer verweildauer sehdauer 时长 停留 durée duración",
    "survey": "survey questionnaire satisfied satisfaction nps umfrage zufrieden 问卷 满意",
    "reaction": "like liked likes follow followed share shared shares favorite favourite favorited comment commented comments collect collected save saved cart forward forwarded dislike disliked hate skip skipped returned subscribe longview 点赞 关注 分享 收藏 评论 转发 加购",
    "context": "scenario scene network netz device platform plattform channel kanal os browser app referrer surface tab campaign weekday hour endgerät gerät 场景 网络 设备 渠道 平台 终端",
    "bias": "layout template thumbnail autoplay highlighted promoted sponsored featured banner 样式 布局",
}
"""Words in column names that suggest a role, by role. If several roles match a name, the first one is used."""
GRADES = 11
"""Largest number of distinct values of a column of ordinal grades."""
CONTEXT_VALUES = 200
"""Largest number of distinct values of a context column."""


@dataclass
class Further:
    """Proposed further roles of the columns of a log.

    Attributes:
        guesses: guesses by key of the mapping, supported by names and values.
        suggestions: optional lines for the mapping, each with its reason.
        doubts: notes on columns with ambiguous or unexpected values, as sentences.
    """

    guesses: dict[str, Guess] = field(default_factory=dict)
    suggestions: list[tuple[str, str]] = field(default_factory=list)
    doubts: list[str] = field(default_factory=list)


def further(log: Table, free: Iterable[str], rules: Iterable[str], keys: Iterable[str]) -> Further:
    """Propose roles for the remaining columns of a log.

    Args:
        log: the log.
        free: columns of the log without a role.
        rules: columns of the log that the rules for click and conversion read.
        keys: id columns of the log; a column that depends on one of them does not describe the event.
    """
    found = Further()
    for name in rules:
        _propose_from_rule(found, log.columns[name].understood)
    items = list(keys)
    for name in free:
        column = log.columns[name]
        if column.understood.kind == "flag" and says(name, UNWANTED):
            rows = int(read_truth(log.frame[name]).values.sum() or 0)
            if rows:
                found.doubts.append(
                    f"{name} marks {rows:,} of {column.rows:,} rows, which are used like any others. If they are not "
                    "real user activity, remove them from the file, or exclude them by two rules of the mapping: "
                    f"exposed: not {column_text(name)}, and click: … and not {column_text(name)}."
                )
            continue
        role = next((role for role, words in NAMES.items() if says(name, words)), None)
        if role is None and "rating" in column.means:
            role = "rating"
        if role is None and "quantity" in column.means and not column.means & {"id", "price"}:
            role = "quantity"
        if role is not None and not any(depends(log, key, column) for key in items):
            _propose_from_name(found, column.understood, role)
    return found


def _propose_from_rule(found: Further, column: Column) -> None:
    """Propose a further role for a column that the rule for clicks or conversions reads."""
    if column.kind == "text" and any(action(value) for value in column.values):
        reason = "its values are names of user actions"
        found.guesses["events.behaviour"] = Guess(column.name, 0.85, (reason,))
    elif "rating" in column.means and (grades := _grades(column)):
        line = _label(column, "ordinal", grades=grades)
        found.suggestions.append(
            (f"labels: {yaml_line(line)}", f"to predict the {len(grades)} grades of {column.name} directly")
        )


def _propose_from_name(found: Further, column: Column, role: str) -> None:
    low, high = column.low, column.high
    number = column.kind in ("number", "integer") and low is not None and high is not None
    single = f"events.{role}"
    if role == "propensity" and number and (low or 0) > 0 and (high or 2) <= 1 and single not in found.guesses:
        found.guesses[single] = Guess(column.name, 0.8, ("its name, and values in (0, 1]",))
    elif role == "position" and column.kind == "integer" and (low or 0) >= 0 and single not in found.guesses:
        reason = f"its name, and integers from {low:g} to {high:g}"
        found.guesses[single] = Guess(column.name, 0.8, (reason,))
    elif (
        role == "list_id"
        and column.identifier
        and 5 <= column.distinct < 0.9 * column.present
        and (single not in found.guesses)
    ):
        rows = f"{column.present / column.distinct:.1f} rows per value"
        found.guesses[single] = Guess(column.name, 0.7, ("its name", rows))
    elif role == "duration" and number and (low or 0) >= 0:
        _learn(found, column, "duration", 0.7, f"its name, and numbers from {low:g} to {high:g}")
    elif role == "survey" and column.kind == "flag":
        _learn(found, column, "survey", 0.7, f"its name, and 0/1 in {column.present:,} of {column.rows:,} rows")
    elif role == "reaction" and column.kind == "flag" and column.distinct == 1 and column.present < column.rows:
        _ask(
            found,
            column,
            f"it holds only {column.examples[0]} and {column.rows - column.present:,} empty cells",
            "is not null",
        )
    elif role == "reaction" and column.kind == "flag":
        _learn(found, column, "binary", 0.75, "its name, and values of 0 and 1")
    elif role == "quantity" and column.negative:
        name = column_text(column.name)
        found.doubts.append(
            f"{column.name} is negative in {column.negative:,} of {column.rows:,} rows (returned goods?), which are used like any others. Remove them from the file, or treat them as exposures without a click: click: {name} > 0."
        )
    elif role in ("reaction", "quantity") and column.kind == "integer" and (low or 0) >= 0:
        line = _label(column, "count")
        found.suggestions.append((f"labels: {yaml_line(line)}", f"{column.name} counts from {low:g} to {high:g}"))
    elif role in ("rating", "survey") and (grades := _grades(column)):
        _learn(found, column, "ordinal", 0.7, f"its name, and {len(grades)} grades", grades=grades)
    elif role == "reaction" and column.kind in ("text", "integer", "number") and column.values:
        _ask(found, column, f"it holds {', '.join(column.values)}", f"== {value_text(column.values[0])}")
    elif role == "duration" and column.kind in ("text", "time") and column.examples:
        found.doubts.append(
            f"{column.name} is named like a label, but its values are not numbers ({', '.join(column.examples[:3])}), so it is not used. Write it in seconds, or as a share, to make it a label."
        )
    elif role in ("context", "bias") and _is_context(column):
        known = found.guesses.get(single)
        names = (*(known.value if known else ()), column.name)
        reason = "their names, and few distinct values: " + ", ".join(names)
        found.guesses[single] = Guess(names, 0.65, (reason,))
    elif role in ("context", "bias"):
        why = f"not proposed: {column.name} does not hold 2 to {CONTEXT_VALUES} distinct texts or integers ({column.describe()})"
        found.suggestions.append((f"{role}: [{column.name}]", why))


def _ask(found: Further, column: Column, content: str, test: str) -> None:
    """Report a column that is named like a label but has ambiguous values, and suggest a rule."""
    entry = _label(column, "binary")
    for declared in entry.values():
        declared["column"] = f"{column_text(column.name)} {test}"
    line = yaml_line(entry)
    found.suggestions.append((f"labels: {line}", f"if this is the meaning of {column.name}"))
    found.doubts.append(
        f"{column.name} is named like a label, but {content}, so it is unclear which values mean yes. To use it, declare a label for it."
    )


def _learn(found: Further, column: Column, kind: str, sure: float, reason: str, **more: Any) -> None:
    for name, value in _label(column, kind, **more).items():
        key, number = f"events.labels.{name}", 1
        while key in found.guesses:  # names that are not ASCII may become the same valid name
            number += 1
            key = f"events.labels.{name}_{number}"
        found.guesses[key] = Guess(value, sure, (reason,), column=column.name)


def _label(column: Column, kind: str, **more: Any) -> dict[str, dict[str, Any]]:
    """Return the entry of the mapping for a label, under a valid name."""
    name = "_".join(word for word in parts(column.name) if word.isascii()).strip("_")
    if not name or not name[0].isalpha() or name in FIXED or name in INSIDE:
        name = f"{kind}_{name}".strip("_")
    read = {} if name == column.name else {"column": column_text(column.name)}
    return {name: {"kind": kind, **read, **more}}


def _grades(column: Column) -> list[Any]:
    """Return the grades of a column in ascending order: all integers from the lowest to the highest, or the distinct
    values if not all of them are integers. The list is empty if the values are not numbers or if too many are distinct.
    """
    if column.kind not in ("integer", "number") or not 2 <= column.distinct <= GRADES or not column.values:
        return []
    if column.low is None or column.high is None or len(column.forms) > 1:
        return []
    if column.kind == "integer" and column.high - column.low < GRADES:
        return list(range(int(column.low), int(column.high) + 1))
    return sorted(float(value) for value in column.values)


def _is_context(column: Column) -> bool:
    return column.kind in ("text", "flag", "integer") and 2 <= column.distinct <= CONTEXT_VALUES
