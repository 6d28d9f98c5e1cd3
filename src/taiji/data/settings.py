"""Settings of the data package."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

from pydantic import Field, field_validator

from taiji.core.settings import Settings

DOMAIN = r"^[a-zA-Z0-9_][a-zA-Z0-9_-]*$"
"""Pattern of the name of a domain, which is also the name of a folder of prompt templates."""


class DataSettings(Settings):
    """Settings of the data source."""

    source: str = "completejourney"
    """``completejourney``; a folder of MovieLens or Amazon files, also as ``movielens:FOLDER`` or ``amazon:FOLDER``;
    ``sequences:FILE``, a file with each user's items in order but without times; ``world:SCENARIO``, a simulated world;
    a folder of your own files, described by ``mapping``; or a source of another package, given as
    ``package.module:Name`` or by the name of its entry point in ``taiji.sources``, with an optional ``:ARGUMENT``."""
    mapping: Path | None = None
    """YAML file that assigns roles to the columns of your own files (default: ``mapping.yaml`` in the folder, if it
    exists)."""
    users: int | None = Field(default=None, ge=1)
    """Number of users to sample; `null` keeps all users. The activity of the sampled users is distributed over time as
    in the whole log."""
    non_clicks: int | None = Field(default=None, ge=0)
    """Largest number of exposures without a click to sample per trip (completejourney) or per click (ratings, your own
    files); `null` uses the default of the source."""
    domain: str | None = Field(default=None, pattern=DOMAIN)
    """Domain of the items, which determines the wording of prompts: `shop`, `films`, `books`, or your own folder in
    `reasoning.prompts.templates`; `null` uses the domain of the source."""


class SplitSettings(Settings):
    """Settings of the split by global time into four periods: reward ranker | LLM training | ranker training | test."""

    fractions: tuple[float, float, float, float] = (0.3, 0.25, 0.25, 0.2)
    """Share of the interactions (clicks in chronological order) in each period; positive numbers that sum to 1."""

    @field_validator("fractions", mode="before")
    @classmethod
    def _four(cls, value: Any) -> Any:
        if not isinstance(value, list | tuple) or len(value) != 4:
            raise ValueError("expected four positive shares that sum to 1")
        return value

    @field_validator("fractions")
    @classmethod
    def _sums_to_one(cls, value: tuple[float, ...]) -> tuple[float, ...]:
        if min(value) <= 0 or abs(sum(value) - 1) > 1e-6:
            raise ValueError(f"expected four positive shares that sum to 1, found the sum {sum(value):g}")
        return value


class ExampleSettings(Settings):
    """Settings of the choice of prompt examples, which are triples of user, cutoff and target."""

    target: Literal["next_new_item", "next_purchase"] = "next_new_item"
    """``next_new_item``: an item with which the user has not interacted before; ``next_purchase``: the item of any
    click, whether or not the user bought it or had interacted with it before."""
    min_history: int = Field(default=5, ge=1)
    """Smallest number of interactions of the user strictly before the cutoff."""
    per_user: int | None = Field(default=1, ge=1)
    """Largest number of examples per user and period (chosen with a seed); `null` keeps all."""
    limit: int | None = Field(default=None, ge=1)
    """Largest number of examples per period (chosen with a seed); `null` keeps all."""
