"""Settings of the feature stage."""

from __future__ import annotations

from pydantic import Field, PositiveInt

from taiji.core.settings import Settings


class FeatureSettings(Settings):
    """Settings of the features that are computed from the language model's answers."""

    slots: PositiveInt = 8
    """Number of ids per row, which is the number of sub-vectors of the product quantiser."""
    bits: int = Field(default=6, ge=1, le=12)
    """Number of bits per id. Each sub-vector has ``2**bits`` centroids, or fewer if there are fewer training
    vectors."""
    iterations: PositiveInt = 25
    """Number of rounds of k-means when the product quantiser is fitted."""
    neighbour_items: PositiveInt = 100
    """Number of most recent interactions that are kept of the look-alike, which is the other user with the most similar
    answer."""
    search_block: PositiveInt = 1024
    """Number of rows compared at a time in the look-alike search. It limits the memory used and does not change the
    results."""
    keep_vector: bool = False
    """Keep the dense embedding of the answer in the table, for rankers that use it directly."""
    history_mean: PositiveInt = 50
    """Number of most recent interactions that the history-mean embedding averages."""

    intent_samples: PositiveInt = 1
    """Number of answers per row if answers are sets. With 1, the weight of an intent is its sequence probability. With
    more answers, the weight is the number of sampled answers that name the intent; this needs `generation.temperature`
    above 0."""
    align_intents: bool = False
    """Fit a linear map that moves intents closer to the user's next items, if answers are sets. The fit uses prompts of
    the language model's training period, which the language model answers again for this purpose."""
    student: bool = False
    """Train a student (a small, fast model) on the intent rows, if answers are sets. The student's intents replace
    missing and outdated rows."""
    oldest_s: float | None = Field(default=None, gt=0)
    """Age of a row, in seconds since its `as_of`, above which the row is outdated and replaced by the student's
    intents. With `null`, rows never become outdated."""
    delay_s: float = Field(default=0.0, ge=0)
    """Delay, in seconds, between the `as_of` of a row and the time from which the row can be read. For rows made in
    batches, this is the time for prompting, generation and publishing."""

    @property
    def columns(self) -> tuple[str, ...]:
        """Names of the features that a ranker reads; the vector is included only if it is kept."""
        return ("ids", "neighbour_items", "vector") if self.keep_vector else ("ids", "neighbour_items")
