"""Budgets of a cascade: how many candidates each step hands on, and how long it may take."""

from __future__ import annotations

from pydantic import Field, PositiveInt

from taiji.core.settings import Settings


class Budget(Settings):
    """Candidates and seconds of each step of the request path."""

    retrieved: PositiveInt = 200
    """Candidates asked of each retriever."""
    candidates: PositiveInt = 500
    """Candidates that are kept of all retrievers' together."""
    coarse: PositiveInt = 200
    """Candidates that the coarse ranker hands to the ranker, where there is a coarse one."""
    reranked: PositiveInt = 100
    """Best candidates of the ranker among which the list is chosen."""
    retrieval_seconds: float | None = Field(default=None, gt=0)
    """Time after which retrievers that have not answered are left out; `null` waits for all."""
    ranking_seconds: float | None = Field(default=None, gt=0)
    """Time after which candidates that are not ranked yet are left out; `null` ranks all."""
    ranking_block: PositiveInt = 100
    """Candidates ranked between two looks at the clock."""
