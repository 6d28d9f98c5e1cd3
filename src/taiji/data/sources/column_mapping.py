"""Settings of a mapping: a YAML file that assigns roles to the columns of a user's own files."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

from pydantic import Field, ValidationError, field_validator, model_validator

from taiji.core.errors import ConfigError
from taiji.core.settings import Settings, problem_text
from taiji.core.yaml_files import read_yaml
from taiji.data.event_columns import EventColumns
from taiji.data.item_text import DESCRIPTION
from taiji.data.schema import LEVEL
from taiji.data.settings import DOMAIN
from taiji.data.sources.label_rules import Label, Rule, parse_rule
from taiji.data.sources.number_cells import NumberForm
from taiji.data.sources.time_cells import Unit
from taiji.data.tasks import Task

Unusable = Literal["error", "drop"]


class FileMapping(Settings):
    """File that a mapping describes, and how to read it."""

    file: str
    """Parquet, CSV, TSV, JSON-lines or Excel file (possibly ``.gz``), folder of such files, or pattern (``log-*.csv``),
    relative to the folder of the mapping, or to ``data.source`` if ``data.mapping`` names the mapping."""
    separator: str | None = Field(default=None, min_length=1, max_length=1)
    """Separator of a CSV; by default a tab for ``.tsv`` and a comma otherwise."""
    header: list[str] | None = None
    """Column names for a CSV without a header line."""
    decimal: Literal[".", ","] = "."
    """Decimal separator of the numbers in a CSV: ``.`` for ``3.10``, ``,`` for ``3,10`` (and ``1.234,50``)."""
    numbers: dict[str, NumberForm] = Field(default_factory=dict)
    """Columns whose numbers have another notation, each with an example: ``{price: "1,234.50"}``."""


class TimeMapping(Settings):
    """Column of timestamps, and how to read it."""

    column: str
    """Name of the column."""
    clock: str | None = None
    """Column of the time of day, if ``column`` holds only the day."""
    unit: Unit = "text"
    """Unit of times that are numbers since 1970, or ``excel`` for spreadsheet serial days; ``text`` for written dates
    and for the date-time type of Parquet."""
    format: str | None = None
    """Format of a date, such as ``%d.%m.%Y %H:%M``; by default ISO 8601. With ``clock``, it is the format of the day
    and the time of day, separated by a space. A time zone after the time of day is recognised."""

    @property
    def columns(self) -> tuple[str, ...]:
        """Columns to read."""
        return (self.column,) if self.clock is None else (self.column, self.clock)

    @model_validator(mode="after")
    def _check_unit(self) -> TimeMapping:
        if self.unit != "text" and (self.clock or self.format):
            raise ValueError(f"clock and format require written dates (unit: text), found unit: {self.unit}")
        return self


class LevelsMapping(Settings):
    """Column that contains all category levels."""

    column: str
    """Name of the column."""
    separator: str = Field(default="|", min_length=1)
    """Separator between the levels, which run from the coarsest to the finest."""
    depth: int = Field(default=3, ge=1)
    """Number of levels to keep, starting with the coarsest."""


class ItemsMapping(FileMapping):
    """Table of items."""

    item_id: str
    title: str
    category_levels: dict[str, str] = Field(default_factory=dict)
    """Columns by category level. The mapping file gives them by the keys ``category_l1``, ``category_l2``, …."""
    categories: LevelsMapping | None = None
    """Column with all levels, instead of ``category_l1``, ``category_l2``, …"""
    price: str | None = None
    description: str | None = None
    """Column of longer texts about the items, which becomes the column ``description``."""
    keep: tuple[str, ...] = ()
    """Further columns to keep."""
    one_per_id: bool = False
    """True if ids are repeated in the file, as in a joined table. The first row of each id is used; rows with a title
    take precedence."""

    @model_validator(mode="before")
    @classmethod
    def _collect_levels(cls, value: Any) -> Any:
        if not isinstance(value, dict):
            return value
        levels = {key: column for key, column in value.items() if LEVEL.match(str(key))}
        rest = {key: column for key, column in value.items() if key not in levels}
        named = {key: column for key, column in levels.items() if column is not None}
        return {**rest, "category_levels": named} if named else rest

    @model_validator(mode="after")
    def _check_exclusive(self) -> ItemsMapping:
        if self.categories and self.category_levels:
            raise ValueError("give either categories or category_l1, category_l2, …, not both")
        if self.description and {self.description, DESCRIPTION} & set(self.keep):
            raise ValueError(f"the description is already kept: remove {self.description} or {DESCRIPTION} from keep")
        own = {"item", "item_id", "title", *self.category_levels, *(["price"] if self.price else [])}
        own |= {f"category_l{level}" for level in range(1, self.categories.depth + 1)} if self.categories else set()
        if clash := sorted(own & set(self.keep)):
            raise ValueError(
                f"keep: the table of items has a column of its own named {', '.join(clash)}; remove or rename these columns"
            )
        return self


class UsersMapping(FileMapping):
    """Table of users."""

    user_id: str
    profile: tuple[str, ...] = ()
    """Columns that prompts may show about a user."""
    one_per_id: bool = False
    """True if ids are repeated in the file, as in a joined table. The first row of each id is used."""

    @field_validator("profile")
    @classmethod
    def _check_names(cls, profile: tuple[str, ...]) -> tuple[str, ...]:
        if clash := sorted({"user", "user_id"} & set(profile)):
            raise ValueError(
                f"the table of users has a column of its own named {', '.join(clash)}; remove or rename these columns"
            )
        return profile


class LabelMapping(Task):
    """Label besides click and conversion. The key of its entry is its name."""

    column: str | None = None
    """Column of the values; by default the name of the label. For a binary label or a survey it may be a rule (``action
    == like or shared``)."""
    grades: tuple[float | str, ...] = ()
    """Values of an ordinal label in ascending order; they are replaced by 0, 1, 2, …"""

    @model_validator(mode="before")
    @classmethod
    def _count_levels(cls, value: Any) -> Any:
        if isinstance(value, dict) and isinstance(value.get("grades"), list | tuple):
            return {"levels": len(value["grades"]), **value}
        return value

    @model_validator(mode="after")
    def _check_grades_and_rule(self) -> LabelMapping:
        if self.grades and (self.kind != "ordinal" or self.levels != len(set(self.grades))):
            raise ValueError("grades must be the distinct values of an ordinal label, one per level")
        plain = isinstance(self.rule, Label) and self.rule.sign is None
        if self.kind not in ("binary", "survey") and not plain:
            raise ValueError(
                "a rule gives 0 or 1, so only a binary label or a survey can be read by a rule; name a column"
            )
        return self

    @property
    def rule(self) -> Rule:
        """Rule by which the label is read from the file."""
        return parse_rule(self.column or self.name)

    @property
    def task(self) -> Task:
        """Task of the label."""
        return Task(**self.model_dump(exclude={"column", "grades"}))


class EventsMapping(FileMapping):
    """Log of events."""

    user_id: str
    item_id: str
    timestamp: TimeMapping | str
    """Column of the timestamps. A name alone means ``{column: NAME, unit: text}``."""
    exposed: bool | int | str = True
    """Rule that is true if a row is an exposure; ``false`` for a log of actions without exposures."""
    click: bool | int | str = 1
    conversion: bool | int | str | None = None
    price: str | None = None
    matured_at: TimeMapping | str | None = None
    """Column of the time at which conversions and labels with ``delayed: true`` became known."""
    matures_after_days: float | None = Field(default=None, gt=0)
    """Days after which conversions and labels with ``delayed: true`` become known, instead of ``matured_at``. A label
    that could not mature within the log becomes unknown."""
    in_order: Literal["file", "user"] | None = None
    """Declare that timestamps never decrease within the file (``file``), or within the rows of each user (``user``).
    The order is checked."""
    non_clicks: int = Field(default=0, ge=0)
    """Largest number of popular items to sample for each click as exposures without a click, for a log that has no such
    exposures."""
    labels: dict[str, LabelMapping] = Field(default_factory=dict)
    """Labels besides click and conversion, by name."""
    behaviour: str | None = None
    """Column of the user's behaviour (view, cart, buy, …)."""
    context: tuple[str, ...] = ()
    """Columns that are known at the time of the request (scenario, network, device, …)."""
    bias: tuple[str, ...] = ()
    """Columns that describe how the item was displayed, besides the position."""
    list_id: str | None = None
    """Column whose value is shared by the items that were shown together."""
    position: str | None = None
    """Column of the position in the list."""
    propensity: str | None = None
    """Column of the probability with which the logging policy showed the item at this position."""

    @field_validator("labels", mode="before")
    @classmethod
    def _add_names(cls, value: Any) -> Any:
        if not isinstance(value, dict):
            return value
        if named := [name for name, label in value.items() if isinstance(label, dict) and "name" in label]:
            raise ValueError(f"the key of a label is its name: remove `name` from {', '.join(map(str, named))}")
        return {
            name: {"name": name, **label} if isinstance(label, dict) else {"name": name} if label is None else label
            for name, label in value.items()
        }

    @field_validator("exposed", "click", "conversion")
    @classmethod
    def _check_rule(cls, rule: bool | int | str | None) -> bool | int | str | None:
        if rule is not None:
            parse_rule(rule)
        return rule

    @model_validator(mode="after")
    def _check_exclusive(self) -> EventsMapping:
        if self.matured_at is not None and self.matures_after_days is not None:
            raise ValueError("give either matured_at or matures_after_days, not both")
        return self

    @model_validator(mode="after")
    def _check_single_roles(self) -> EventsMapping:
        """Check that a column of ``context`` or ``bias`` has no other role, because it would reveal the outcome."""
        rules = {"exposed": self.exposed, "click": self.click, "conversion": self.conversion}
        uses = {name: parse_rule(rule).columns for name, rule in rules.items() if rule is not None}
        uses |= {name: label.rule.columns for name, label in self.labels.items()}
        uses |= {role: (column,) for role, column in self.single.items()}
        uses |= {"price": (self.price,)} if self.price else {}
        if self.matured_at is not None:
            plan = self.matured_at
            uses["matured_at"] = (plan,) if isinstance(plan, str) else plan.columns
        for role, columns in (("context", self.context), ("bias", self.bias)):
            for name, column in [(name, column) for name, read in uses.items() for column in read]:
                if column in columns:
                    raise ValueError(
                        f"column {column} has two roles: it determines {name} and is listed under {role}; a column that is known at the request cannot be the outcome"
                    )
        return self

    @property
    def single(self) -> dict[str, str]:
        """Columns by role, for the roles with a single column. In the events, each column is named after its role."""
        roles = {name: getattr(self, name) for name in ("behaviour", "list_id", "position", "propensity")}
        return {role: column for role, column in roles.items() if column}

    @property
    def event_columns(self) -> EventColumns:
        """Roles of the further columns in the tables that are read."""
        return EventColumns(
            labels=tuple(label.task for label in self.labels.values()),
            context=self.context,
            bias=self.bias,
            conversion=self.conversion is not None,
            **{role: role for role in self.single},
        )


class Mapping(Settings):
    """Complete mapping file."""

    name: str = "data"
    """Name of the dataset in the report."""
    domain: str = Field(default="shop", pattern=DOMAIN)
    """Domain of the items: the folder of templates that determines the wording of prompts."""
    unusable: Unusable = "error"
    """Handling of rows without an id, a timestamp, a click label or a title, of events with an id that is missing from
    the items or users, and of invalid cells: ``error`` raises an error that lists them, and ``drop`` drops and counts
    them (an invalid cell becomes null)."""
    items: ItemsMapping
    events: EventsMapping
    users: UsersMapping | None = None
    """Table of users. If omitted, the users are the ids in the log."""


def read_mapping(path: Path) -> Mapping:
    """Read and validate a mapping file.

    Raises:
        ConfigError: the file is not a valid mapping; the message lists the missing, unknown and invalid keys.
    """
    value = read_yaml(path, "the mapping", "see docs/data.md for an example")
    if not isinstance(value, dict):
        raise ConfigError(
            "The mapping file is not a YAML mapping.",
            where=str(path),
            expected="keys items, events and optionally users, name, domain, unusable",
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
            "A mapping is invalid.",
            where=str(path),
            expected="the keys listed in docs/data.md",
            found=problems,
            fix="correct these keys",
        ) from error
    mapping.events.event_columns.check(f"{path}, events")
    return mapping
