"""Roles of the columns that events have beyond the fixed ones, and the values that each role allows."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

import polars as pl

from taiji.core.errors import ConfigError
from taiji.core.settings import Settings
from taiji.data.tasks import CLICK, CONVERSION, Task, check_tasks

FIXED = ("user_id", "item_id", "timestamp", "exposed", "click", "conversion", "matured_at", "price")
"""Columns of events that have their meaning by name, at the edge."""
INSIDE = ("event", "user", "item", "time", "ids", "vector", "neighbour_items")
"""Further names that datasets and feature tables give to columns of their own."""


class EventColumns(Settings):
    """Names of the further columns of events, by role; a column has one role.

    Labels and behaviours are outcomes: nothing may read those of a row to predict that row. Context is known at the
    request. Bias variables and positions shaped what was seen and clicked, whatever the user's taste.
    """

    labels: tuple[Task, ...] = ()
    """Labels beside click and conversion, each in the column that bears its name; null where a label is not known."""
    behaviour: str | None = None
    """Action of the user, as text (view, cart, buy, …)."""
    context: tuple[str, ...] = ()
    """Circumstances of the request (scenario, network, device, …)."""
    bias: tuple[str, ...] = ()
    """Circumstances of the display beside the position (size, colour, neighbours, …)."""
    list_id: str | None = None
    """The list in which the item was shown: rows with the same value were shown together."""
    position: str | None = None
    """Place in that list, a whole number of at least 0."""
    propensity: str | None = None
    """Probability with which the logging policy showed the item there, in (0, 1]."""
    conversion: bool = True
    """True if the log knows conversions; :meth:`taiji.data.dataset.Dataset.from_tables` sets it."""

    @property
    def names(self) -> tuple[str, ...]:
        """All further columns in the order in which a dataset keeps them."""
        single = (self.list_id, self.position, self.propensity)
        outcomes = (*(task.name for task in self.labels), *([self.behaviour] if self.behaviour else []))
        return (*outcomes, *self.context, *self.bias, *(name for name in single if name))

    @property
    def known_at_display(self) -> tuple[str, ...]:
        """Columns that are not outcomes: context, bias variables, list, position and propensity."""
        outcomes = {self.behaviour, *(task.name for task in self.labels)}
        return tuple(name for name in self.names if name not in outcomes)

    @property
    def tasks(self) -> tuple[Task, ...]:
        """Click, conversion where the log knows it, and the declared labels, each behind the one it is ``given``."""
        return self.check("labels")

    def check(self, where: str) -> tuple[Task, ...]:
        """Return the tasks.

        Args:
            where: the table or file that declares the columns, for messages.

        Raises:
            ConfigError: a column with two roles or with a reserved name, or see :func:`check_tasks`.
        """
        counts = Counter(self.names)
        taken = [name for name in self.names if name in FIXED or name in INSIDE]
        twice = [name for name, count in counts.items() if count > 1]
        if taken or twice:
            raise ConfigError(
                "A column of events has two roles.",
                where=f"{where}, column {(taken or twice)[0]}",
                expected=f"one role each, and none of the names {', '.join((*FIXED, *INSIDE))}",
                found=", ".join(taken or twice),
                fix="declare the column once, or rename it",
            )
        first = (CLICK, CONVERSION) if self.conversion else (CLICK,)
        tasks = check_tasks((*first, *self.labels), where)
        taken = [head for task in self.labels for head in task.heads if head in FIXED or head in INSIDE]
        if taken:
            raise ConfigError(
                "A prediction would have the name of a column that has its meaning already.",
                where=f"{where}.labels",
                expected=f"none of {', '.join((*FIXED, *INSIDE))}",
                found=", ".join(taken),
                fix="give the label another `joint`",
            )
        return tasks


NO_COLUMNS = EventColumns()


@dataclass(frozen=True)
class Rule:
    """Values that a column may hold.

    Attributes:
        kinds: ``numbers``, ``ids`` (integers or text), ``texts`` (made from integers too) or ``values`` (any of these).
        dtype: data type of the column afterwards; None keeps its own.
        valid: expression on the column ``value``; nulls are skipped.
        expected: in words.
        fix: what to do about a value that is not.
    """

    kinds: str
    dtype: pl.DataType | type[pl.DataType] | None
    valid: pl.Expr
    expected: str
    fix: str = "correct these values, or leave them empty where they are not known"

    def accepts(self, kind: pl.DataType) -> bool:
        """Tell whether a column of this type can be read."""
        texts = kind in (pl.String, pl.Categorical) or isinstance(kind, pl.Enum)
        if kind == pl.Null or kind.is_integer():
            return True
        if self.kinds == "numbers":
            return kind.is_numeric() or kind == pl.Boolean
        return texts or (self.kinds == "values" and (kind.is_numeric() or kind == pl.Boolean))


VALUE = pl.col("value")
WHOLE = (VALUE.floor() == VALUE) & VALUE.is_finite()
ANY = pl.lit(True)
LARGEST = 3.4e38
"""Largest number that labels can hold (float32)."""
TRUTH = Rule("numbers", pl.Int8, VALUE.is_in([0.0, 1.0]), "0 or 1, or nothing where it is not known")
KINDS = {
    "binary": TRUTH,
    "survey": TRUTH,
    "count": Rule(
        "numbers", pl.Int64, WHOLE & (VALUE >= 0) & (VALUE < 2**53), "a whole number of at least 0 (a count)"
    ),
    "duration": Rule("numbers", pl.Float64, (VALUE >= 0) & (VALUE <= LARGEST), "a number of at least 0 (a duration)"),
    "pairwise": Rule("numbers", pl.Float64, VALUE.is_finite(), "a finite number"),
}
PLACE = Rule("numbers", pl.Int32, WHOLE & (VALUE >= 0) & (VALUE < 2**31), "a whole number of at least 0 (a position)")
CHANCE = Rule("numbers", pl.Float64, (VALUE > 0) & (VALUE <= 1), "a probability in (0, 1]")
IDS = Rule("ids", None, ANY, "integers or text")
NAMES = Rule("texts", pl.String, ANY, "text or integers")
VALUES = Rule("values", None, ANY, "text, numbers or booleans")


def rules(columns: EventColumns) -> dict[str, Rule]:
    """Return the rule of every further column."""
    found: dict[str | None, Rule] = {task.name: _rule(task) for task in columns.labels}
    found |= dict.fromkeys((*columns.context, *columns.bias), VALUES)
    found[columns.behaviour] = NAMES
    found |= {columns.list_id: IDS, columns.position: PLACE, columns.propensity: CHANCE}
    return {name: rule for name, rule in found.items() if name is not None}


def _rule(task: Task) -> Rule:
    if task.kind != "ordinal":
        return KINDS[task.kind]
    top = (task.levels or 2) - 1
    return Rule(
        "numbers",
        pl.Int64,
        WHOLE & (VALUE >= 0) & (top >= VALUE),
        f"a grade of 0 to {top}, counted from 0",
        "list the file's grades in ascending order in the mapping (`grades: [1, 2, 3, 4, 5]`), or correct levels",
    )
