"""Settings of the feature stage."""

from __future__ import annotations

from pydantic import Field, PositiveInt

from taiji.core.settings import Settings


class FeatureSettings(Settings):
    """Features of answers."""

    slots: PositiveInt = 8
    """Ids per row: sub-vectors of the product quantiser."""
    bits: int = Field(default=6, ge=1, le=12)
    """Bits per id: each sub-vector is one of ``2**bits`` centroids (fewer when there are fewer training vectors)."""
    iterations: PositiveInt = 25
    """Rounds of k-means."""
    neighbour_items: PositiveInt = 100
    """Number of the look-alike user's most recent interactions that are kept."""
    search_block: PositiveInt = 1024
    """Rows compared at a time in the look-alike search; bounds memory without changing results."""
    keep_vector: bool = False
    """Keep the dense embedding in the table, for rankers that use it directly."""
    history_mean: PositiveInt = 50
    """Number of most recent interactions averaged by the history-mean embedding."""

    intent_samples: PositiveInt = 1
    """Answers per row where answers are sets. 1: an intent's weight is its sequence probability; more than 1: the
    number of sampled answers that name it (needs `generation.temperature` above 0)."""
    align_intents: bool = False
    """Where answers are sets: fit a linear map of the intent space on the next items in the language model's
    training period, whose prompts are answered again for this."""
    student: bool = False
    """Where answers are sets: train a student on the intent rows; it fills in where a user has no row, or an
    outdated one."""
    oldest_s: float | None = Field(default=None, gt=0)
    """Age of a row, in seconds since its `as_of`, after which the student's intents replace its own; `null`: never."""
    delay_s: float = Field(default=0.0, ge=0)
    """Seconds from a row's `as_of` until it can be read, for rows made in batches: the time for prompting,
    generation and publishing."""

    @property
    def columns(self) -> tuple[str, ...]:
        """Features given to a ranker, with the vector only if it is kept."""
        return ("ids", "neighbour_items", "vector") if self.keep_vector else ("ids", "neighbour_items")
