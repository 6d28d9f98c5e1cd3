"""Settings of copywriting. Free of heavy imports."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pydantic import Field, PositiveInt

from taiji.core.settings import Settings


class PairSettings(Settings):
    """Rules that turn the results of sends into training pairs."""

    outcome: Literal["satisfied", "clicks"] = "satisfied"
    """Success of a sent text: a click by a user who was satisfied, or any click. With clicks alone, clickbait wins."""
    least_sends: PositiveInt = 50
    """Smallest number of sends of each text of a pair, within the strata in which both were sent."""
    least_z: float = Field(default=1.0, ge=0.0)
    """Smallest difference between the two rates, in standard errors; 0 uses all pairs except ties."""


class CopyLimits(Settings):
    """Limits of a text, and the evidence that it needs."""

    shortest: PositiveInt = 12
    """Smallest number of characters of a text."""
    longest: PositiveInt = 110
    """Largest number of characters of a text."""
    duplicate: float = Field(default=0.8, gt=0.0, le=1.0)
    """The later of two texts about an item is a near-duplicate if at least this share of their words is common to both.
    Words of the item's title are ignored."""
    comment_support: PositiveInt = 2
    """Number of different comments that must contain a word before a text may use it, because comments are written by
    strangers."""
    forbidden: tuple[str, ...] = (
        "free", "guarantee", "guaranteed", "winner", "prize", "act now", "click here", "risk-free", "miracle", "cheapest",
    )  # fmt: skip
    """Words and phrases that a text must not contain."""
    words: Path | None = None
    """File with everyday words that need no evidence, one per line. It replaces the packaged English words, for copy in
    another language. A word that is capitalised in the file may be capitalised within a sentence (nouns in German)."""


class CopywritingSettings(Settings):
    """Copy (short marketing texts) for items: generation, checks and choice."""

    kind: Literal["local", "endpoint", "rules"] = "local"
    """Writer: the language model of the run, the endpoint of `reasoning.endpoint` with its budget and journal, or the
    example sentences of the category files."""
    categories: tuple[str, ...] = ()
    """Categories to write; empty for all categories that have a file for the domain."""
    templates: Path | None = None
    """Folder with `<category>.j2` (or `<domain>/<category>.j2`) in addition to the packaged ones. A new file adds a
    category, and a file of the same name replaces the packaged one."""
    candidates: PositiveInt = 3
    """Number of texts written per item and category."""
    items: PositiveInt | None = None
    """Number of items to write about, from the start of the catalogue; `null` for all."""
    comments: PositiveInt = 5
    """Number of the newest comments that a prompt shows."""
    max_new_tokens: int = Field(default=40, ge=8)
    """Longest text of a local model, in tokens. For an endpoint, set `reasoning.endpoint.max_tokens`."""
    temperature: float = Field(default=0.8, ge=0.0)
    """Sampling temperature. With 0, all candidates for an item and category are the same text."""
    batch_size: PositiveInt = 24
    """Number of texts that a local model writes together."""
    chunk: PositiveInt = 64
    """Number of items per part of the work. With a local model, an interrupted command loses at most one part."""
    exploration: float = Field(default=0.1, ge=0.0, le=1.0)
    """Share of the sends that is spread evenly over all of an item's texts that passed the checks."""
    limits: CopyLimits = CopyLimits()
    pairs: PairSettings = PairSettings()
