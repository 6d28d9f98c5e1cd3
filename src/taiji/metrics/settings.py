"""Settings of the evaluation."""

from __future__ import annotations

from pydantic import Field

from taiji.core.settings import Settings


class EvaluationSettings(Settings):
    """Intervals of the metrics, and the threshold for poorly grounded answers."""

    resamples: int = Field(default=1000, ge=10)
    """Number of bootstrap resamples of users."""
    level: float = Field(default=0.95, gt=0, lt=1)
    """Coverage of every interval."""
    grounding_threshold: float = Field(default=0.3, ge=-1, le=1)
    """Cosine between an answer and its nearest item below which the answer counts as poorly grounded. The reward of
    such an answer is still used."""
