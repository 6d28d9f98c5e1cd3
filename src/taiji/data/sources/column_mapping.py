"""The mapping: a YAML file that says which column of one's own files plays which part."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from pydantic import Field, ValidationError, field_validator, model_validator

from taiji.core.errors import TaijiError
from taiji.core.settings import Settings, problem_text
from taiji.core.yaml_files import read_yaml

COMPARISON = re.compile(r"^\s*(?P<column>.+?)\s*(?P<sign>>=|<=|==|!=|>|<)\s*(?P<value>.+?)\s*$")
NUMBER = re.compile(r"^[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?$")


@dataclass(frozen=True)
class Label:
    """A label's rule: a constant, a column of 0/1, or a comparison of a column with a constant.

    Attributes:
        column: what is read; None for a constant.
        sign: ``>= <= == != > <``; None where the column (or constant) is the label itself.
        value: compared with; or the constant.
    """

    column: str | None
    sign: str | None
    value: float | str | None

    @classmethod
    def parse(cls, rule: bool | int | str) -> Label:
        """``rating >= 4``, ``action == buy``, ``clicked`` or ``1``."""
        if not isinstance(rule, str):
            return cls(None, None, float(rule))
        found = COMPARISON.match(rule)
        if not found:
            return cls(rule.strip(), None, None)
        value = found["value"]
        if NUMBER.match(value):
            return cls(found["column"], found["sign"], float(value))
        if found["sign"] not in ("==", "!="):
            raise ValueError(f"{found['sign']} compares with a number, found {value!r}")
        quoted = len(value) > 1 and value[0] == value[-1] and value[0] in "'\""
        return cls(found["column"], found["sign"], value[1:-1] if quoted else value)


class FileMapping(Settings):
    """A file of the mapping's folder."""

    file: str
    """Parquet, CSV, TSV or JSON lines (``.gz`` too), relative to the mapping's folder."""
    separator: str | None = Field(default=None, min_length=1, max_length=1)
    """Of a CSV; by default a comma, in a ``.tsv`` a tab."""
    header: list[str] | None = None
    """Column names of a CSV without a header line."""
    decimal: Literal[".", ","] = "."
    """How numbers in a CSV are written: ``3.10``, or ``3,10`` (and ``1.234,50``)."""


class TimeMapping(Settings):
    """A column of times."""

    column: str
    """Its name."""
    unit: Literal["s", "ms", "us", "ns", "text"] = "text"
    """Of integers since 1970; ``text`` for dates written out (in a Parquet file also for date-times as such)."""
    format: str | None = None
    """How a date is written, such as ``%d.%m.%Y %H:%M``; by default ISO 8601."""


class LevelsMapping(Settings):
    """One column that holds all category levels."""

    column: str
    """Its name."""
    separator: str = Field(default="|", min_length=1)
    """Between levels, from the coarsest to the finest."""


class ItemsMapping(FileMapping):
    """The item table."""

    item_id: str
    title: str
    category_l1: str | None = None
    category_l2: str | None = None
    category_l3: str | None = None
    categories: LevelsMapping | None = None
    """Instead of ``category_l1`` to ``category_l3``."""
    price: str | None = None
    keep: tuple[str, ...] = ()
    """Further columns to keep, such as a description."""
    one_per_id: bool = False
    """The file repeats ids, as a joined table does: the first row of each id counts."""

    @model_validator(mode="after")
    def _one_way(self) -> ItemsMapping:
        if self.categories and (self.category_l1 or self.category_l2 or self.category_l3):
            raise ValueError("give either categories or category_l1 to category_l3, not both")
        return self


class UsersMapping(FileMapping):
    """The user table."""

    user_id: str
    profile: tuple[str, ...] = ()
    """Columns that prompts may tell about a user."""
    one_per_id: bool = False
    """The file repeats ids, as a joined table does: the first row of each id counts."""


class EventsMapping(FileMapping):
    """The log."""

    user_id: str
    item_id: str
    timestamp: TimeMapping | str
    """A column name alone means ``{column: NAME, unit: text}``."""
    exposed: bool | int | str = True
    """Whether the row is an exposure; ``false`` for actions that none led to."""
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

    @field_validator("exposed", "click", "conversion")
    @classmethod
    def _parses(cls, rule: bool | int | str | None) -> bool | int | str | None:
        if rule is not None:
            Label.parse(rule)
        return rule

    @model_validator(mode="after")
    def _one_way(self) -> EventsMapping:
        if self.matured_at is not None and self.matures_after_days is not None:
            raise ValueError("give either matured_at or matures_after_days, not both")
        return self


class Mapping(Settings):
    """A whole mapping file."""

    name: str = "data"
    """Of the data set, for the report."""
    domain: str = "shop"
    unusable: Literal["error", "drop"] = "error"
    """Rows without an id, a time or a title, and events that name an id which its table lacks: stop and name them, or drop and count them."""
    items: ItemsMapping
    events: EventsMapping
    users: UsersMapping | None = None
    """Left out, users are the ids in the log."""


def read_mapping(path: Path) -> Mapping:
    """Read and check a mapping file.

    Raises:
        TaijiError: naming the file and each key that is missing, unknown or wrong.
    """
    value = read_yaml(path, "the mapping", "see docs/data.md for an example")
    if not isinstance(value, dict):
        raise TaijiError(
            "A mapping is no YAML mapping.",
            where=str(path),
            expected="keys items, events and optionally users, name, domain",
            found=type(value).__name__,
            fix="see docs/data.md for an example",
        )
    try:
        return Mapping(**value)
    except ValidationError as error:
        problems = "; ".join(
            f"{'.'.join(map(str, problem['loc'])) or 'mapping'}: {problem_text(problem)}"
            for problem in error.errors(include_url=False)
        )
        raise TaijiError(
            "A mapping is not as it should be.",
            where=str(path),
            expected="the keys that docs/data.md lists",
            found=problems,
            fix="correct these keys",
        ) from error
