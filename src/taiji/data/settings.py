"""Settings of the data package."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

from pydantic import Field, field_validator

from taiji.core.settings import Settings

DOMAIN = r"^[a-zA-Z0-9_][a-zA-Z0-9_-]*$"
"""Names that a domain can have: those of a folder of prompt templates."""


class DataSettings(Settings):
    """Choice of the log, and of how much of it is read."""

    source: str = "completejourney"
    """``completejourney``; a folder whose layout is known (MovieLens, Amazon); ``movielens:FOLDER`` or ``amazon:FOLDER``; ``world:SCENARIO``, a simulated world; a folder of your own files, described by ``mapping``; or a source of another package, as ``package.module:Name`` or by its entry point in ``taiji.sources`` (a further ``:ARGUMENT`` is handed to it)."""
    mapping: Path | None = None
    """YAML file that says which column is what, for files of your own (default: ``mapping.yaml`` in the folder, if it is there)."""
    users: int | None = Field(default=None, ge=1)
    """Keep a seeded sample of this many users, spread evenly over the time of the log; `null` keeps all."""
    non_clicks: int | None = Field(default=None, ge=0)
    """Sampled exposures without a click: per trip (completejourney) or per rating; `null` takes the source's default."""
    domain: str | None = Field(default=None, pattern=DOMAIN)
    """Kind of the items, for the wording of prompts: `shop`, `films`, `books` or a folder of your own beneath `reasoning.prompts.templates`; `null` takes the source's own."""


class SplitSettings(Settings):
    """The split by global time: reward ranker | LLM training | ranker training | test."""

    fractions: tuple[float, float, float, float] = (0.3, 0.25, 0.25, 0.2)
    """Share of the interactions (clicks, in time order) in each period; positive, summing to 1."""

    @field_validator("fractions", mode="before")
    @classmethod
    def _four(cls, value: Any) -> Any:
        if not isinstance(value, list | tuple) or len(value) != 4:
            raise ValueError("four positive shares that sum to 1 are expected")
        return value

    @field_validator("fractions")
    @classmethod
    def _sums_to_one(cls, value: tuple[float, ...]) -> tuple[float, ...]:
        if min(value) <= 0 or abs(sum(value) - 1) > 1e-6:
            raise ValueError(f"four positive shares that sum to 1 are expected, not {sum(value):g}")
        return value


class ExampleSettings(Settings):
    """Choice of the (user, cutoff, target) triples that become prompt examples."""

    target: Literal["next_new_item", "next_purchase"] = "next_new_item"
    """``next_new_item``: an item the user never interacted with before; ``next_purchase``: any interaction."""
    min_history: int = Field(default=5, ge=1)
    """Interactions a user must have strictly before the cutoff."""
    per_user: int | None = Field(default=1, ge=1)
    """At most this many examples of one user in one period (a seeded choice); `null` keeps all."""
    limit: int | None = Field(default=None, ge=1)
    """At most this many examples in one period (a seeded choice); `null` keeps all."""
