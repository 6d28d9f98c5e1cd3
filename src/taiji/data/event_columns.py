"""Roles of the further columns of events, and the values that each role allows."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

import polars as pl

from taiji.core.errors import ConfigError
from taiji.core.settings import Settings
from taiji.data.tasks import CLICK, CONVERSION, Task, check_tasks

FIXED = ("user_id", "item_id", "timestamp", "exposed", "click", "conversion", "matured_at", "price")
"""Names of event columns that have a fixed meaning in every source."""
INSIDE = ("event", "user", "item", "time", "ids", "vector", "neighbour_items")
"""Further reserved names: columns that datasets and feature tables add."""


class EventColumns(Settings):
    """Names of the event columns besides :data:`FIXED`, by role. A column has only one role.

    Labels and the behaviour are outcomes: a model must not use them to predict the same row. Context is known at the
    time of the request. Bias variables and positions influence what is seen and clicked, independently of the user's
    taste.
    """

    labels: tuple[Task, ...] = ()
    """Labels besides click and conversion. The column of a label has the name of the label, and is null where the label
    is unknown."""
    behaviour: str | None = None
    """Column of the user's action as text (view, cart, buy, …)."""
    context: tuple[str, ...] = ()
    """Columns that describe the request (scenario, network, device, …)."""
    bias: tuple[str, ...] = ()
    """Columns that describe the display besides the position (size, colour, neighbours, …)."""
    list_id: str | None = None
    """Column with the id of the list in which the item was shown; rows with the same value were shown together."""
    position: str | None = None
    """Column of the position in the list, an integer of at least 0."""
    propensity: str | None = None
    """Column of the probability, in (0, 1], with which the logging policy showed the item at this position."""
    conversion: bool = True
    """True if the log has conversions; set by :meth:`taiji.data.dataset.Dataset.from_tables`."""

    @property
    def names(self) -> tuple[str, ...]:
        """All further columns, in their order in a dataset."""
        single = (self.list_id, self.position, self.propensity)
        outcomes = (*(task.name for task in self.labels), *([self.behaviour] if self.behaviour else []))
        return (*outcomes, *self.context, *self.bias, *(name for name in single if name))

    @property
    def known_at_display(self) -> tuple[str, ...]:
        """Columns that are not outcomes: context, bias variables, list id, position and propensity."""
        outcomes = {self.behaviour, *(task.name for task in self.labels)}
        return tuple(name for name in self.names if name not in outcomes)

    @property
    def tasks(self) -> tuple[Task, ...]:
        """Click, conversion if the log has it, and the declared labels.

        A label that is conditional on another label (``given``) comes after that label.
        """
        return self.check("labels")

    def check(self, where: str) -> tuple[Task, ...]:
        """Validate the columns and return the tasks.

        Args:
            where: table or file that declares the columns, for messages.

        Raises:
            ConfigError: a column has two roles or a reserved name, or the labels are invalid (see :func:`check_tasks`).
        """
        counts = Counter(self.names)
        taken = [name for name in self.names if name in FIXED or name in INSIDE]
        twice = [name for name, count in counts.items() if count > 1]
        if taken or twice:
            raise ConfigError(
                "A column of events has two roles or a reserved name.",
                where=f"{where}, column {(taken or twice)[0]}",
                expected=f"one role per column, and none of the reserved names {', '.join((*FIXED, *INSIDE))}",
                found=", ".join(taken or twice),
                fix="declare the column once, or rename it",
            )
        first = (CLICK, CONVERSION) if self.conversion else (CLICK,)
        tasks = check_tasks((*first, *self.labels), where)
        taken = [head for task in self.labels for head in task.heads if head in FIXED or head in INSIDE]
        if taken:
            raise ConfigError(
                "A prediction would have a reserved name.",
                where=f"{where}.labels",
                expected=f"none of the reserved names {', '.join((*FIXED, *INSIDE))}",
                found=", ".join(taken),
                fix="set a different `joint` for the label",
            )
        return tasks


NO_COLUMNS = EventColumns()


@dataclass(frozen=True)
class Rule:
    """Rule for the values of a column.

    Attributes:
        kinds: accepted values: ``numbers`` (numbers or booleans), ``ids`` (integers or text), ``texts`` (text, or
            integers converted to text) or ``values`` (text, numbers or booleans).
        dtype: data type to which the column is converted; None keeps its type, except that categorical columns become
            text.
        valid: expression that is true for valid values of the column ``value``; nulls are skipped.
        expected: description of valid values for messages.
        fix: advice for invalid values.
    """

    kinds: str
    dtype: pl.DataType | type[pl.DataType] | None
    valid: pl.Expr
    expected: str
    fix: str = "correct these values, or leave unknown ones empty"

    def accepts(self, kind: pl.DataType) -> bool:
        """Return True if a column of this type can be read."""
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
"""Largest number that a label can hold (float32)."""
TRUTH = Rule("numbers", pl.Int8, VALUE.is_in([0.0, 1.0]), "0 or 1, or empty where unknown")
KINDS = {
    "binary": TRUTH,
    "survey": TRUTH,
    "count": Rule("numbers", pl.Int64, WHOLE & (VALUE >= 0) & (VALUE < 2**53), "an integer of at least 0 (a count)"),
    "duration": Rule("numbers", pl.Float64, (VALUE >= 0) & (VALUE <= LARGEST), "a number of at least 0 (a duration)"),
    "pairwise": Rule("numbers", pl.Float64, VALUE.is_finite(), "a finite number"),
}
PLACE = Rule("numbers", pl.Int32, WHOLE & (VALUE >= 0) & (VALUE < 2**31), "an integer of at least 0 (a position)")
CHANCE = Rule("numbers", pl.Float64, (VALUE > 0) & (VALUE <= 1), "a probability in (0, 1]")
IDS = Rule("ids", None, ANY, "integers or text")
NAMES = Rule("texts", pl.String, ANY, "text or integers")
VALUES = Rule("values", None, ANY, "text, numbers or booleans")


def rules(columns: EventColumns) -> dict[str, Rule]:
    """Return the rules of the further columns by column name."""
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
        "list the grades of the file in ascending order in the mapping (`grades: [1, 2, 3, 4, 5]`), or correct `levels`",
    )
