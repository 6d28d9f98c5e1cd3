"""Settings of copywriting. Free of heavy imports."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pydantic import Field, PositiveInt

from taiji.core.settings import Settings


class PairSettings(Settings):
    """Pairs of copies out of the results of sends."""

    outcome: Literal["satisfied", "clicks"] = "satisfied"
    """Success of a send: a click that satisfied, or any click. By clicks alone clickbait wins."""
    least_sends: PositiveInt = 50
    """Sends that each copy of a pair must have in the strata in which both were sent."""
    least_z: float = Field(default=1.0, ge=0.0)
    """Least distance of the two rates in standard errors; 0 takes every pair that is not even."""


class CopyLimits(Settings):
    """Limits of a copy, and what grounds it."""

    shortest: PositiveInt = 12
    """Fewest characters of a copy."""
    longest: PositiveInt = 110
    """Most characters of a copy."""
    duplicate: float = Field(default=0.8, gt=0.0, le=1.0)
    """Share of common words from which on the later of two copies of an item is a near-duplicate; words of its title do not count."""
    comment_support: PositiveInt = 2
    """Different comments that must say a word before a copy may: comments are by strangers."""
    forbidden: tuple[str, ...] = (
        "free", "guarantee", "guaranteed", "winner", "prize", "act now", "click here", "risk-free", "miracle", "cheapest",
    )  # fmt: skip
    """Words and phrases that no copy may have."""
    words: Path | None = None
    """Everyday words that need no evidence, one per line, in place of the packaged English ones: for copy in another language. One with a capital may be written so inside a sentence (nouns in German)."""


class CopywritingSettings(Settings):
    """Copy about items: generation, checks, choice."""

    kind: Literal["local", "endpoint", "rules"] = "local"
    """The language model of the run, the endpoint of `reasoning.endpoint` with its budget and journal, or the example sentences of the category files."""
    categories: tuple[str, ...] = ()
    """Categories that are written; none named: every one that has a file for the domain."""
    templates: Path | None = None
    """A folder with `<category>.j2` (or `<domain>/<category>.j2`) beside the packaged ones: a new file is a new category, one of the same name replaces it."""
    candidates: PositiveInt = 3
    """Copies that are written per item and category."""
    items: PositiveInt | None = None
    """Items that are written about, the first of the catalogue; `null`: all."""
    comments: PositiveInt = 5
    """Comments that a prompt shows, the newest."""
    max_new_tokens: int = Field(default=40, ge=8)
    """Longest copy, in tokens, of a local model; an endpoint has `reasoning.endpoint.max_tokens`."""
    temperature: float = Field(default=0.8, ge=0.0)
    """Of the sampling; 0 makes all candidates of a category one text."""
    batch_size: PositiveInt = 24
    """Copies written together by a local model."""
    chunk: PositiveInt = 64
    """Items per part of the work: what a killed command loses at most with a local model."""
    exploration: float = Field(default=0.1, ge=0.0, le=1.0)
    """Share of the sends that goes evenly to all copies of an item that passed the checks."""
    limits: CopyLimits = CopyLimits()
    pairs: PairSettings = PairSettings()
