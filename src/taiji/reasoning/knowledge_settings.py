"""Settings of item knowledge. Free of heavy imports."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pydantic import Field, PositiveInt

from taiji.core.settings import Settings


class ItemKnowledgeSettings(Settings):
    """Texts about items that a language model writes once per item."""

    kind: Literal["local", "endpoint"] = "local"
    """The language model of the run, in process, or the endpoint of `reasoning.endpoint` with its budget and journal."""
    items: PositiveInt | None = None
    """Number of items to write about, from the start of the catalogue, for a trial to be read. `null`: all."""
    max_new_tokens: int = Field(default=80, ge=8)
    """Longest text, in tokens, of a local model; an endpoint has `reasoning.endpoint.max_tokens`."""
    temperature: float = Field(default=0.0, ge=0.0)
    """Of the sampling; 0 takes the likeliest token each time."""
    repetition_penalty: float = Field(default=1.1, ge=1.0)
    """Against the loops of small models; local models only."""
    batch_size: PositiveInt = 24
    """Items written about together by a local model."""
    chunk: PositiveInt = 96
    """Items per partition: the most that a killed run loses."""
    delay_s: float = Field(default=0.0, ge=0.0)
    """Seconds from an item's listing until its text can be read: the time that prompting, writing and publishing take. Before that, a ranker uses the
    item without it."""
    earlier: Path | None = None
    """A table of an earlier run: items with the same prompt and writer keep their text and are not requested again."""
