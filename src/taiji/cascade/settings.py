"""Settings of the recipe that trains and evaluates a recommender."""

from __future__ import annotations

from typing import Any, Literal, Self

from pydantic import Field, PositiveInt, model_validator

from taiji.cascade.budget import Budget
from taiji.core.settings import Settings

EVALUATION_KEYS = (
    "depths",
    "requests",
    "request_at",
    "horizon_days",
    "new_items_only",
    "traced",
    "closed_loop_users",
)
"""Keys of the section that no list depends on."""


class RecommendSettings(Settings):
    """A recommender over one log: components of the request path, and how it is evaluated."""

    retrievers: dict[str, dict[str, Any]] = Field(
        default={
            "popular": {"model": "popularity", "half_life_days": 28},
            "together": {"model": "cooccurrence"},
            "sasrec": {"model": "sasrec"},
        },
        min_length=1,
    )
    """Name to retriever: `model` is an entry point of the group `taiji.retrievers` or `package.module:Class`, `weight` (for rank fusion) and
    `quota` (for quotas) its part in the merge, the other keys are the model's settings."""
    merge: Literal["rank_fusion", "quotas"] = "rank_fusion"
    """One slate of all retrievers': by reciprocal ranks, or so many from each in the order given."""
    rank: bool = True
    """Rank the candidates by the model of section `ranking`; without, the order of the merge stays."""
    fusion: str = "rank_average"
    """One score of the predictions: `linear` (their sum), `log_linear` (their product), `rank_average` (the mean of the ranks that they
    give), or a fusion that is fitted: `quantile_alignment`, `grouped_alignment`, `monotone_ensemble`, `cells`, or another entry point of the group
    `taiji.fusers` or `package.module:Class`."""
    fusion_settings: dict[str, Any] = Field(default={})
    """Settings of that fusion beside the weights."""
    fusion_weights: dict[str, float] = Field(default={"click": 1.0, "merged": 1.0}, min_length=1)
    """Prediction to its weight in the fusion; `merged` is the score of the retrievers' merge. A ranker that was trained on what was
    shown says little about the rest of the catalogue, so its word alone may be worse than the merge's."""
    rerank: str = "none"
    """Diversity of the list, by the items' text vectors: `none`, `mmr`, `dpp`; `best_of_lists` judges proposed lists by an evaluator that was
    saved; `device_gate` replaces what would stall by what is on the device; or another entry point of the group `taiji.rerankers` or `package.module:Class`, called with the vectors and the strength."""
    rerank_settings: dict[str, Any] = Field(default={})
    """Further settings of that re-ranker."""
    rerank_strength: float = Field(default=0.7, gt=0)
    """Weight of the scores against diversity: λ of `mmr` (at most 1), the exponent of `dpp`."""
    features: str | None = None
    """Run directory of `taiji run` whose features the ranker reads, as of each request's time; users and items are matched by their ids
    in the tables. `null` ranks without features."""
    most_per_category: PositiveInt | None = None
    """Items of one deepest category in a list, at most; `null` sets no cap."""
    budget: Budget = Budget()
    length: PositiveInt = 10
    """Items of a list."""
    depths: tuple[PositiveInt, ...] = (10, 50, 200)
    """Depths at which retrieval is evaluated."""
    requests: PositiveInt = 3000
    """Users of the test period who are asked for, at most, with one request each."""
    request_at: Literal["random", "first"] = "random"
    """Time of a user's request: one of the user's events of the test period, drawn by the seed, or the first of them."""
    horizon_days: float | None = Field(default=None, gt=0)
    """Time after a request in which what the user takes counts as found; `null`: to the end of the log."""
    new_items_only: bool | None = None
    """Count only items that the user had not had before; `null` does so where the retrievers drop seen items."""
    traced: int = Field(default=100, ge=0)
    """Requests of which the way of every candidate is kept, for `taiji view`."""
    closed_loop_users: int = Field(default=500, ge=0)
    """Users whom the recommender serves in the world that the log came from, where it came from one; 0 leaves the closed loop out."""

    @model_validator(mode="after")
    def _features_have_a_reader(self) -> Self:
        if self.features is not None and not self.rank:
            raise ValueError("`features` are read by the ranker, so they need `rank: true`")
        return self
