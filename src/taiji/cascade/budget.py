"""Budgets of a cascade: numbers of candidates and time limits of its steps."""

from __future__ import annotations

from typing import Self

from pydantic import Field, PositiveInt

from taiji.core.settings import Settings


class Budget(Settings):
    """Candidates and time limits of each step of the request path."""

    retrieved: PositiveInt = 200
    """Number of candidates requested from each retriever."""
    candidates: PositiveInt = 500
    """Number of candidates kept after the merge."""
    coarse: PositiveInt = 200
    """Number of candidates passed from the coarse ranker, if there is one, to the ranker."""
    reranked: PositiveInt = 100
    """Number of best-ranked candidates from which the re-rankers, if there are any, choose the list."""
    retrieval_seconds: float | None = Field(default=None, gt=0)
    """Time limit of retrieval in seconds. Retrievers that respond later are left out; `null` waits for all."""
    ranking_seconds: float | None = Field(default=None, gt=0)
    """Time limit of ranking in seconds. Candidates that are not ranked by then are left out; `null` ranks all."""
    ranking_block: PositiveInt = 100
    """Number of candidates ranked between two checks of the time limit."""

    def unhurried(self) -> Self:
        """Return the budget without time limits, for blocks of requests, which take longer than one request."""
        return self.model_copy(update={"retrieval_seconds": None, "ranking_seconds": None})
