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
"""Keys of the section ``recommend`` that do not affect the lists."""


class RecommendSettings(Settings):
    """A recommender on one log: components of the request path, and its evaluation."""

    retrievers: dict[str, dict[str, Any]] = Field(
        default={
            "popular": {"model": "popularity", "half_life_days": 28},
            "together": {"model": "cooccurrence"},
            "sasrec": {"model": "sasrec"},
        },
        min_length=1,
    )
    """Retrievers by name. `model` is an entry point of the group `taiji.retrievers` or `package.module:Class`. `weight`
    (for the merge `rank_fusion`) and `quota` (for the merge `quotas`) determine the retriever's part in the merge. All
    other keys are settings of the model.
    """
    merge: Literal["rank_fusion", "quotas"] = "rank_fusion"
    """Merge of the retrievers' slates: by reciprocal ranks, or by quotas in the order of the retrievers."""
    rank: bool = True
    """Rank the candidates with the model of the section `ranking`; otherwise keep the order of the merge."""
    fusion: str = "rank_average"
    """Fusion of the predictions to one score: `linear` (their weighted sum), `log_linear` (their weighted product),
    `rank_average` (the weighted sum of their ranks), or a fitted fusion: `quantile_alignment`, `grouped_alignment`,
    `monotone_ensemble`, `cells`, or another entry point of the group `taiji.fusers` or `package.module:Class`."""
    fusion_settings: dict[str, Any] = Field(default={})
    """Settings of the fusion, without the weights."""
    fusion_weights: dict[str, float] = Field(default={"click": 1.0, "merged": 1.0}, min_length=1)
    """Weight of each prediction in the fusion; `merged` is the score of the retrievers' merge. A ranker trained on
    exposures knows little about the rest of the catalogue, so its predictions alone may be worse than the merge."""
    rerank: str = "none"
    """Re-ranker of the list: `none`; `mmr` or `dpp` (diversity by the items' text vectors); `best_of_lists` (scores
    proposed lists with a saved evaluator); `device_gate` (replaces videos that are likely to stall with videos that are
    already on the device); or another entry point of the group `taiji.rerankers` or `package.module:Class`, which is
    called with the item vectors and the strength."""
    rerank_settings: dict[str, Any] = Field(default={})
    """Further settings of the re-ranker."""
    rerank_strength: float = Field(default=0.7, gt=0)
    """Weight of the scores against diversity: λ of `mmr` (at most 1) or the exponent of `dpp`."""
    features: str | None = None
    """Run directory of `taiji run` whose features the ranker reads as of each request's time; users and items are
    matched by their original ids. `null` ranks without features."""
    without_fields: tuple[str, ...] = ()
    """Names of ranker fields that are listed in `ranking.fields` or `ranking.pair_fields`. For each, a further ranker
    is trained without it, and the ablation has a row for it."""
    most_per_category: PositiveInt | None = None
    """Largest number of items per deepest category in a list; `null` sets no cap."""
    budget: Budget = Budget()
    length: PositiveInt = 10
    """Items per list."""
    depths: tuple[PositiveInt, ...] = (10, 50, 200)
    """Depths at which retrieval is evaluated."""
    requests: PositiveInt = 3000
    """Largest number of users of the test period to evaluate, with one request each."""
    request_at: Literal["random", "first"] = "random"
    """Time of a user's request: a random one of the user's events in the test period, or the first."""
    horizon_days: float | None = Field(default=None, gt=0)
    """Days after a request within which the user's interactions are targets; `null` for all until the end of the
    log."""
    new_items_only: bool | None = None
    """Count only items that are new to the user as targets; `null` does this if the retrievers drop seen items."""
    traced: int = Field(default=100, ge=0)
    """Number of requests whose candidates are all traced, for `taiji view`."""
    closed_loop_users: int = Field(default=500, ge=0)
    """Number of users that the recommender serves in the closed loop; 0 omits the closed loop. It needs a log from a
    simulated world."""

    @model_validator(mode="after")
    def _features_have_a_reader(self) -> Self:
        if self.features is not None and not self.rank:
            raise ValueError("`features` are read by the ranker, so they need `rank: true`")
        if self.without_fields and not self.rank:
            raise ValueError("`without_fields` are fields of the ranker, so they need `rank: true`")
        return self
