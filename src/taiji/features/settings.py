"""Settings of the feature stage."""

from __future__ import annotations

from pydantic import Field, PositiveInt

from taiji.core.settings import Settings


class FeatureSettings(Settings):
    """Features of answers."""

    slots: PositiveInt = 8
    """Ids a row: sub-vectors of the product quantiser."""
    bits: int = Field(default=6, ge=1, le=12)
    """Bits an id: each sub-vector is one of ``2**bits`` centroids (fewer when there are fewer training vectors)."""
    iterations: PositiveInt = 25
    """Rounds of k-means."""
    neighbour_items: PositiveInt = 100
    """Most recent interactions of the look-alike user that are kept."""
    search_block: PositiveInt = 1024
    """Rows compared at a time when looking for the look-alike; bounds memory, changes no result."""
    keep_vector: bool = False
    """Also keep the dense embedding in the table, for rankers that use it directly."""
    history_mean: PositiveInt = 50
    """Most recent interactions averaged by the history-mean embedding."""

    intent_samples: PositiveInt = 1
    """Answers per row where answers are sets. 1: an intent's weight is its sequence probability; more: how many of the sampled answers name it (needs `generation.temperature` above 0)."""
    align_intents: bool = False
    """Where answers are sets: fit a linear map of the intents' space on what came next in the language model's period. Its prompts are answered once more for that."""
    student: bool = False
    """Where answers are sets: train a student on the rows of intents. It stands in where a user has no row, or an old one."""
    oldest_s: float | None = Field(default=None, gt=0)
    """Seconds from a row's `as_of` after which the student's intents take the place of the row's; `null`: never."""
    delay_s: float = Field(default=0.0, ge=0)
    """Seconds from a row's `as_of` until it can be read, for rows made in batches: how long prompting, writing and publishing take."""

    @property
    def columns(self) -> tuple[str, ...]:
        """The features a ranker gets: the vector only where it is kept."""
        return ("ids", "neighbour_items", "vector") if self.keep_vector else ("ids", "neighbour_items")
