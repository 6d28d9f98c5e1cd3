"""Settings of the feature stage."""

from __future__ import annotations

from pydantic import Field, PositiveInt

from taiji.core.settings import Settings


class FeatureSettings(Settings):
    """Features of answers."""

    slots: PositiveInt = 8
    """Number of ids per row, which is the number of sub-vectors of the product quantiser."""
    bits: int = Field(default=6, ge=1, le=12)
    """Number of bits per id: each sub-vector is one of ``2**bits`` centroids (fewer if there are fewer training vectors)."""
    iterations: PositiveInt = 25
    """Number of rounds of k-means."""
    neighbour_items: PositiveInt = 100
    """Number of most recent interactions of the look-alike user that are kept."""
    search_block: PositiveInt = 1024
    """Number of rows that are compared at a time in the look-alike search; it bounds the memory and does not change results."""
    keep_vector: bool = False
    """Keep the dense embedding in the table, for rankers that use it directly."""
    history_mean: PositiveInt = 50
    """Number of most recent interactions that the history-mean embedding averages."""

    intent_samples: PositiveInt = 1
    """Number of answers per row if answers are sets. With 1, the weight of an intent is its sequence probability; with more, the number of sampled answers that
    name it (needs `generation.temperature` above 0)."""
    align_intents: bool = False
    """If answers are sets: fit a linear map that moves intents closer to the user's next items. It is fitted on the prompts of the language model's training
    period, which are answered again for this."""
    student: bool = False
    """If answers are sets: train a student on the intent rows. The student's intents replace missing and outdated rows."""
    oldest_s: float | None = Field(default=None, gt=0)
    """Age of a row, in seconds since its `as_of`, above which it is outdated and replaced by the student's intents; `null` for never."""
    delay_s: float = Field(default=0.0, ge=0)
    """Seconds from the `as_of` of a row until it can be read, for rows made in batches: the time for prompting, generation and publishing."""

    @property
    def columns(self) -> tuple[str, ...]:
        """Features given to a ranker, with the vector only if it is kept."""
        return ("ids", "neighbour_items", "vector") if self.keep_vector else ("ids", "neighbour_items")
