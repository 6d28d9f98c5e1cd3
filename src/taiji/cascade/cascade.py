"""Steps from a request to a list of items: retrieve, merge, rank coarsely, rank, adjust, fuse and re-rank."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Any, Protocol

import numpy as np
import polars as pl
from numpy.typing import NDArray

from taiji.cascade.budget import Budget
from taiji.cascade.retrieving import RetrieverPool
from taiji.cascade.trace import Trace, rank_columns
from taiji.core.component import NO_ITEM, Debiaser, Fuser, Predictions, Requests, Reranker, Retriever, Scorer, Slate
from taiji.core.errors import ConfigError
from taiji.models.fusion.learnt_fusion import CANDIDATES
from taiji.models.retrieval.top_items import best_of

Array = NDArray[Any]
MERGED = "merged"
"""Name of the merge's score, which fusion may weight like a prediction of the ranker."""


class Merge(Protocol):
    """Merge of several retrievers' slates."""

    def __call__(self, slates: Mapping[str, Slate], k: int) -> Slate:
        """Return at most ``k`` candidates per request, best first."""


@dataclass(frozen=True, eq=False)
class Ranking:
    """A ranker, and the adjustment and fusion of its predictions into one score."""

    scorer: Scorer[Any]
    fuser: Fuser
    adjusters: Sequence[Debiaser] = ()


@dataclass(frozen=True, eq=False)
class Recommendation:
    """Recommended lists, with timings and an optional trace.

    Attributes:
        slate: (B, k) items, best first, with their scores.
        seconds: seconds per step.
        unranked: (B,) number of candidates left out because the time limit of ranking was reached.
        late: retrievers left out because they did not respond in time.
        failed: retrievers left out because they raised an error, with the messages.
        trace: one row per request and candidate, if requested.
    """

    slate: Slate
    seconds: Mapping[str, float]
    unranked: Array
    late: Sequence[str] = ()
    failed: Mapping[str, str] = field(default_factory=dict)
    trace: pl.DataFrame | None = None


class Cascade:
    """Cascade of fitted components, from requests to recommended lists.

    Args:
        retrievers: retrievers by name.
        merge: merge of the retrievers' slates.
        ranking: ranking of the merged candidates; None keeps the order of the merge.
        coarse: a cheaper ranking before ``ranking``.
        rerankers: re-rankers, applied in sequence to the ranker's best candidates.
        budget: number of candidates and time limit of each step.
    """

    def __init__(
        self,
        retrievers: Mapping[str, Retriever],
        merge: Merge,
        ranking: Ranking | None = None,
        *,
        coarse: Ranking | None = None,
        rerankers: Sequence[Reranker] = (),
        budget: Budget | None = None,
    ) -> None:
        if not retrievers:
            raise ConfigError("The cascade has no retriever.", where="retrievers")
        self.budget = budget or Budget()
        self.pool = RetrieverPool(retrievers, self.budget.retrieval_seconds)
        self.merge, self.ranking, self.coarse, self.rerankers = merge, ranking, coarse, tuple(rerankers)

    def recommend(
        self, requests: Requests, k: int, *, exclude: Array | None = None, trace: bool = False
    ) -> Recommendation:
        """Return the recommended lists.

        Args:
            requests: users, times and contexts.
            k: items per list.
            exclude: (B, E) items that must not be shown, padded with −1.
            trace: True to trace every candidate.
        """
        notes, watch = Trace() if trace else None, Watch()
        with watch("retrieve"):
            asked = self.pool.ask(requests, self.budget.retrieved + (0 if exclude is None else exclude.shape[1]))
        with watch("merge"):
            if notes is not None:
                for slate, columns in rank_columns(asked.slates):
                    notes.scores(slate, columns)
            slates = _without(asked.slates, exclude, self.budget.retrieved, notes)
            merged = self.merge(slates, self.budget.candidates)
            assert merged.scores is not None
            merged = replace(merged, columns={**merged.columns, MERGED: merged.scores})
            if notes is not None:
                for slate in slates.values():
                    notes.left_out(slate, merged, "not among the merged candidates")
                notes.scores(merged, {MERGED: merged.columns[MERGED]})
        current, unranked = merged, np.zeros(len(requests), np.int64)
        for step, ranking, keep in (
            ("coarse", self.coarse, self.budget.coarse),
            ("rank", self.ranking, self.budget.reranked if self.rerankers else k),
        ):
            if ranking is not None:
                with watch(step):
                    current, missed = self._ranked(requests, current, ranking, keep, step, notes)
                    unranked += missed
        if self.rerankers and self.ranking is None:
            before, current = current, current.first(self.budget.reranked)
            if notes is not None:
                notes.left_out(before, current, f"below the best {self.budget.reranked} candidates")
        with watch("rerank"):
            every = chosen = current
            for reranker in self.rerankers:
                before, chosen = chosen, reranker.rerank(requests, every, k)
                if notes is not None:
                    notes.left_out(before, chosen, f"left out by {type(reranker).__name__}")
                if reranker is not self.rerankers[-1]:  # the next re-ranker may also choose from the rest
                    every = _followed_by(chosen, every)
            current = chosen
            shown = current.first(k)
        if notes is not None:
            notes.left_out(current, shown, f"below the first {k}")
        return Recommendation(
            shown, watch.seconds, unranked, asked.late, asked.failed, None if notes is None else notes.frame(shown)
        )

    def _ranked(
        self, requests: Requests, slate: Slate, ranking: Ranking, keep: int, step: str, notes: Trace | None
    ) -> tuple[Slate, Array]:
        """Return the ``keep`` best candidates by a ranking's score, and the number (B,) of candidates that were not
        ranked within the time limit."""
        predictions, ranked = self._predictions(requests, replace(slate, columns={}), ranking)
        unranked = slate.mask[:, ranked:].sum(axis=1)
        every, slate = slate, slate.first(ranked)
        if notes is not None:
            notes.left_out(every, slate, f"not reached by {step} within the time limit")
        # Adjustment and fusion may need the items of the candidates, to look up a property such as the duration.
        requests = replace(requests, columns={**requests.columns, CANDIDATES: slate.items})
        for adjuster in ranking.adjusters:
            predictions = adjuster.adjust(predictions, requests)
        predictions = {MERGED: slate.columns[MERGED], **predictions}
        predictions = {task: np.where(slate.mask, values, np.nan) for task, values in predictions.items()}
        fused = ranking.fuser.fuse(predictions, requests)
        scores = np.where(slate.mask & ~np.isnan(fused), fused, -np.inf)
        if notes is not None:
            notes.predictions(slate, predictions, step)
            notes.scores(slate, {f"{step} score": scores})
        best = best_of(slate, scores, keep)
        if notes is not None:
            notes.left_out(slate, best, f"below the best {keep} of {step}")
        return best, unranked

    def _predictions(self, requests: Requests, slate: Slate, ranking: Ranking) -> tuple[Predictions, int]:
        """Return the predictions of the first positions, and the number of these positions.

        Without a time limit, all positions are ranked.
        """
        state = ranking.scorer.encode(requests)
        width = slate.items.shape[1]
        if self.budget.ranking_seconds is None or not width:
            return ranking.scorer.score(state, slate), width
        end, done = time.perf_counter() + self.budget.ranking_seconds, 0
        parts: list[Predictions] = []
        while done < width and (not parts or time.perf_counter() < end):
            places = np.arange(done, min(done + self.budget.ranking_block, width))
            parts.append(ranking.scorer.score(state, slate.take(np.broadcast_to(places, (len(requests), len(places))))))
            done = int(places[-1]) + 1
        return {
            task: np.concatenate([part[task] for part in parts], axis=1) for task in (parts[0] if parts else ())
        }, done


class Watch:
    """Stopwatch of the steps."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}

    @contextmanager
    def __call__(self, step: str) -> Iterator[None]:
        """Time a step."""
        start = time.perf_counter()
        yield
        self.seconds[step] = time.perf_counter() - start


def _followed_by(first: Slate, rest: Slate) -> Slate:
    """Return ``first`` followed by the items of ``rest`` that it lacks, with the columns of ``first``.

    In a column that ``rest`` lacks, its items get NaN, or 0 if the column does not hold floats.
    """
    own = np.stack([np.isin(a, b) for a, b in zip(rest.items, first.items)]) if len(rest.items) else rest.mask
    rest = rest.kept(rest.mask & ~own)

    def joined(one: Array, other: Array | None) -> Array:
        if other is None:
            empty = np.nan if one.dtype.kind == "f" else 0
            other = np.full((len(one), rest.items.shape[1], *one.shape[2:]), empty, dtype=one.dtype)
        return np.concatenate([one, other], axis=1)

    return Slate(
        joined(first.items, rest.items),
        None if first.scores is None else joined(first.scores, rest.scores),
        None if first.source is None else joined(first.source, rest.source),
        {name: joined(values, rest.columns.get(name)) for name, values in first.columns.items()},
    )


def _without(slates: Mapping[str, Slate], exclude: Array | None, most: int, notes: Trace | None) -> Mapping[str, Slate]:
    """Return the first ``most`` items of each slate after removing the excluded items (B, E)."""
    if exclude is None or not exclude.size:
        return slates
    out = {}
    for name, slate in slates.items():
        gone = np.stack([np.isin(items, without) for items, without in zip(slate.items, exclude)]) & slate.mask
        out[name] = slate.kept(~gone).first(most)
        if notes is not None:
            notes.left_out(Slate(np.where(gone, slate.items, NO_ITEM)), out[name], "excluded by the request")
            spare = Slate(np.where(gone, NO_ITEM, slate.items))
            notes.left_out(spare, out[name], f"below the best {most} of {name}")
    return out
