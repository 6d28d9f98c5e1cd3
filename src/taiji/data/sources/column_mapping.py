"""The mapping: a YAML file that gives the columns of a user's own files their roles."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

from pydantic import Field, ValidationError, field_validator, model_validator

from taiji.core.errors import ConfigError
from taiji.core.settings import Settings, problem_text
from taiji.core.yaml_files import read_yaml
from taiji.data.event_columns import EventColumns
from taiji.data.schema import LEVEL
from taiji.data.settings import DOMAIN
from taiji.data.sources.label_rules import Label, Rule, parse_rule
from taiji.data.sources.number_cells import NumberForm
from taiji.data.sources.time_cells import Unit
from taiji.data.tasks import Task

Unusable = Literal["error", "drop"]


class FileMapping(Settings):
    """A file of the mapping's folder."""

    file: str
    """Parquet, CSV, TSV or JSON lines (``.gz`` too), relative to the mapping's folder."""
    separator: str | None = Field(default=None, min_length=1, max_length=1)
    """Separator of a CSV; by default a comma, in a ``.tsv`` a tab."""
    header: list[str] | None = None
    """Column names of a CSV without a header line."""
    decimal: Literal[".", ","] = "."
    """Form of numbers in a CSV: ``3.10``, or ``3,10`` (and ``1.234,50``)."""
    numbers: dict[str, NumberForm] = Field(default_factory=dict)
    """Columns whose numbers are written otherwise, each with an example: ``{price: "1,234.50"}``."""


class TimeMapping(Settings):
    """A column of times."""

    column: str
    """Its name."""
    clock: str | None = None
    """Column of the time of day, if ``column`` holds only the day."""
    unit: Unit = "text"
    """Of numbers since 1970, or ``excel`` for a spreadsheet's serial days; ``text`` for dates written out (in a Parquet file also for date-times as such)."""
    format: str | None = None
    """Form of a date, such as ``%d.%m.%Y %H:%M`` (day and clock with a space between); by default ISO 8601. A zone behind the time of day is understood."""

    @property
    def columns(self) -> tuple[str, ...]:
        """Columns that are read."""
        return (self.column,) if self.clock is None else (self.column, self.clock)

    @model_validator(mode="after")
    def _written_out(self) -> TimeMapping:
        if self.unit != "text" and (self.clock or self.format):
            raise ValueError(f"a number since 1970 (unit: {self.unit}) has neither clock nor format")
        return self


class LevelsMapping(Settings):
    """One column that holds all category levels."""

    column: str
    """Its name."""
    separator: str = Field(default="|", min_length=1)
    """Separator between levels, from the coarsest to the finest."""
    depth: int = Field(default=3, ge=1)
    """Levels to keep, the coarsest ones; deeper ones are left out."""


class ItemsMapping(FileMapping):
    """The item table."""

    item_id: str
    title: str
    category_levels: dict[str, str] = Field(default_factory=dict)
    """Level to column: the keys ``category_l1``, ``category_l2``, … of the mapping, as many as there are levels."""
    categories: LevelsMapping | None = None
    """Instead of ``category_l1``, ``category_l2``, …"""
    price: str | None = None
    keep: tuple[str, ...] = ()
    """Further columns to keep, such as a description."""
    one_per_id: bool = False
    """The file repeats ids, as a joined table does: the first row of each id counts."""

    @model_validator(mode="before")
    @classmethod
    def _levels(cls, value: Any) -> Any:
        if not isinstance(value, dict):
            return value
        levels = {key: column for key, column in value.items() if LEVEL.match(str(key))}
        rest = {key: column for key, column in value.items() if key not in levels}
        named = {key: column for key, column in levels.items() if column is not None}
        return {**rest, "category_levels": named} if named else rest

    @model_validator(mode="after")
    def _one_way(self) -> ItemsMapping:
        if self.categories and self.category_levels:
            raise ValueError("give either categories or category_l1, category_l2, …, not both")
        return self


class UsersMapping(FileMapping):
    """The user table."""

    user_id: str
    profile: tuple[str, ...] = ()
    """Columns that prompts may show about a user."""
    one_per_id: bool = False
    """The file repeats ids, as a joined table does: the first row of each id counts."""


class LabelMapping(Task):
    """A label beside click and conversion; its key is its name."""

    column: str | None = None
    """Column of its values; the label's name by default. A binary label or a survey may be a rule (``action == like or shared``)."""
    grades: tuple[float | str, ...] = ()
    """Of an ordinal label: the file's values in ascending order, the lowest first; they become 0, 1, 2, …"""

    @model_validator(mode="before")
    @classmethod
    def _counted(cls, value: Any) -> Any:
        if isinstance(value, dict) and isinstance(value.get("grades"), list | tuple):
            return {"levels": len(value["grades"]), **value}
        return value

    @model_validator(mode="after")
    def _fits(self) -> LabelMapping:
        if self.grades and (self.kind != "ordinal" or self.levels != len(set(self.grades))):
            raise ValueError("grades are the different values of an ordinal label, as many as its levels")
        plain = isinstance(self.rule, Label) and self.rule.sign is None
        if self.kind not in ("binary", "survey") and not plain:
            raise ValueError("a rule gives 0 or 1: only a binary label or a survey can be one")
        return self

    @property
    def rule(self) -> Rule:
        """Return the rule by which the label is read from the file."""
        return parse_rule(self.column or self.name)

    @property
    def task(self) -> Task:
        """Return the label's task."""
        return Task(**self.model_dump(exclude={"column", "grades"}))


class EventsMapping(FileMapping):
    """The log."""

    user_id: str
    item_id: str
    timestamp: TimeMapping | str
    """A column name alone means ``{column: NAME, unit: text}``."""
    exposed: bool | int | str = True
    """True if the row is an exposure; ``false`` for actions without an exposure."""
    click: bool | int | str = 1
    conversion: bool | int | str | None = None
    price: str | None = None
    matured_at: TimeMapping | str | None = None
    """When the conversion label became known."""
    matures_after_days: float | None = Field(default=None, gt=0)
    """Instead of ``matured_at``; a label that could not mature within the log becomes unknown."""
    in_order: Literal["file", "user"] | None = None
    """Declares that times never fall along the file, or along each user's rows; checked."""
    non_clicks: int = Field(default=0, ge=0)
    """Exposures to sample beside each click from what was popular, for a log that holds none."""
    labels: dict[str, LabelMapping] = Field(default_factory=dict)
    """Labels beside click and conversion, by name."""
    behaviour: str | None = None
    """Column of the user's behaviour (view, cart, buy, …)."""
    context: tuple[str, ...] = ()
    """Columns known at the request (scenario, network, device, …)."""
    bias: tuple[str, ...] = ()
    """Columns that describe the item's display, besides the position."""
    list_id: str | None = None
    """Column that is the same for items shown together."""
    position: str | None = None
    """Column of the place in that list."""
    propensity: str | None = None
    """Column of the probability with which the logging policy showed the item there."""

    @field_validator("labels", mode="before")
    @classmethod
    def _named(cls, value: Any) -> Any:
        if not isinstance(value, dict):
            return value
        if named := [name for name, label in value.items() if isinstance(label, dict) and "name" in label]:
            raise ValueError(f"a label's key is its name: take `name` out of {', '.join(map(str, named))}")
        return {
            name: {"name": name, **label} if isinstance(label, dict) else {"name": name} if label is None else label
            for name, label in value.items()
        }

    @field_validator("exposed", "click", "conversion")
    @classmethod
    def _parses(cls, rule: bool | int | str | None) -> bool | int | str | None:
        if rule is not None:
            parse_rule(rule)
        return rule

    @model_validator(mode="after")
    def _one_way(self) -> EventsMapping:
        if self.matured_at is not None and self.matures_after_days is not None:
            raise ValueError("give either matured_at or matures_after_days, not both")
        return self

    @model_validator(mode="after")
    def _context_is_no_outcome(self) -> EventsMapping:
        rules = {"exposed": self.exposed, "click": self.click, "conversion": self.conversion}
        outcomes = {name: parse_rule(rule).columns for name, rule in rules.items() if rule is not None}
        outcomes |= {name: label.rule.columns for name, label in self.labels.items()}
        for role, columns in (("context", self.context), ("bias", self.bias)):
            for name, column in [(name, column) for name, read in outcomes.items() for column in read]:
                if column in columns:
                    raise ValueError(
                        f"column {column} has two roles: it decides {name} and is named under {role}; what is known at the request cannot be the outcome"
                    )
        return self

    @property
    def single(self) -> dict[str, str]:
        """Return the columns of single-column roles; events keep each under its role's name."""
        roles = {name: getattr(self, name) for name in ("behaviour", "list_id", "position", "propensity")}
        return {role: column for role, column in roles.items() if column}

    @property
    def event_columns(self) -> EventColumns:
        """Return the roles of the further columns as the tables have them."""
        return EventColumns(
            labels=tuple(label.task for label in self.labels.values()),
            context=self.context,
            bias=self.bias,
            conversion=self.conversion is not None,
            **{role: role for role in self.single},
        )


class Mapping(Settings):
    """A whole mapping file."""

    name: str = "data"
    """Of the data set, for the report."""
    domain: str = Field(default="shop", pattern=DOMAIN)
    """Of the items, for the wording of prompts: a folder of templates."""
    unusable: Unusable = "error"
    """Rows without an id, a time, a click label or a title, events with an id missing from its table, and invalid cells: stop with an error that
    names them, or drop and count them (a cell becomes null)."""
    items: ItemsMapping
    events: EventsMapping
    users: UsersMapping | None = None
    """If omitted, the users are the ids in the log."""


def read_mapping(path: Path) -> Mapping:
    """Read and check a mapping file.

    Raises:
        ConfigError: names the file and each missing, unknown or invalid key.
    """
    value = read_yaml(path, "the mapping", "see docs/data.md for an example")
    if not isinstance(value, dict):
        raise ConfigError(
            "The mapping file is not a YAML mapping.",
            where=str(path),
            expected="keys items, events and optionally users, name, domain",
            found=type(value).__name__,
            fix="see docs/data.md for an example",
        )
    try:
        mapping = Mapping(**value)
    except ValidationError as error:
        problems = "; ".join(
            f"{'.'.join(map(str, problem['loc'])) or 'mapping'}: {problem_text(problem)}"
            for problem in error.errors(include_url=False)
        )
        raise ConfigError(
            "A mapping is not as it should be.",
            where=str(path),
            expected="the keys that docs/data.md lists",
            found=problems,
            fix="correct these keys",
        ) from error
    mapping.events.event_columns.check(f"{path}, events")
    return mapping
