"""Settings of item knowledge. Free of heavy imports."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pydantic import Field, PositiveInt

from taiji.core.settings import Settings


class ItemKnowledgeSettings(Settings):
    """Item knowledge: texts that a language model writes once per item."""

    kind: Literal["local", "endpoint"] = "local"
    """Writer: the language model of the run, in process, or the endpoint of `reasoning.endpoint` with its budget and
    journal."""
    items: PositiveInt | None = None
    """Number of items to write about, from the start of the catalogue, for a trial; `null` writes about all."""
    max_new_tokens: int = Field(default=80, ge=8)
    """Longest text of a local model, in tokens. For an endpoint, set `reasoning.endpoint.max_tokens`."""
    temperature: float = Field(default=0.0, ge=0.0)
    """Sampling temperature; 0 always chooses the most likely token."""
    repetition_penalty: float = Field(default=1.1, ge=1.0)
    """Penalty against repetition loops of small models; only for local models."""
    batch_size: PositiveInt = 24
    """Number of items per batch of a local model."""
    chunk: PositiveInt = 96
    """Items per partition. An interrupted run loses at most the texts of the partitions in progress."""
    delay_s: float = Field(default=0.0, ge=0.0)
    """Seconds from the listing of an item until its text is available: the time for prompting, writing and publishing.
    Until then, rankers use the item without the text."""
    earlier: Path | None = None
    """Table of an earlier run. Items with the same prompt and writer keep their text and are not requested again."""
