"""From a question for a list to its answer: cache, micro-batches, and what the metrics are told."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Awaitable, Callable, Sequence

from taiji.cascade.result_cache import ResultCache
from taiji.core.errors import ResourceError
from taiji.serving.admission import MOST
from taiji.serving.batching import Batcher
from taiji.serving.gate import Rejected
from taiji.serving.schemas import Recommended, RecommendIn, RecommendOut
from taiji.serving.scorers import Scorers
from taiji.serving.service_metrics import Metrics
from taiji.serving.settings import RecommendServingSettings
from taiji.serving.types import RecommendRequest, RecommendResult, StoredRow, UserHistory

Question = tuple[str, RecommendRequest]
BATCH = 8
"""Requests that go through the cascade together, at most: more would make the first of them wait."""


class Recommendations:
    """Answers of one process.

    Args:
        scorers: the releases' models.
        rows, histories: read a user's newest feature row, and events.
        settings: of cache and time budget. metrics: told of every answer.
        patience_s, told: of a :class:`~taiji.serving.batching.Batcher`.
    """

    def __init__(
        self,
        scorers: Scorers,
        rows: Callable[[str], Awaitable[StoredRow | None]],
        histories: Callable[[str], Awaitable[UserHistory]],
        settings: RecommendServingSettings,
        metrics: Metrics,
        patience_s: float = float("inf"),
        told: Callable[[int, float], object] = lambda number, seconds: None,
    ) -> None:
        self._scorers, self._rows, self._histories, self._metrics = scorers, rows, histories, metrics
        self._settings = settings
        self._cache: ResultCache[RecommendResult] = ResultCache(settings.cache_entries, settings.cache_s)
        self._lists: Batcher[Question, RecommendResult] = Batcher(
            self._recommend, BATCH, MOST, apart=True, patience_s=patience_s, told=told
        )

    async def answer(self, asked: RecommendIn) -> RecommendOut:
        """Return the list that is wanted.

        Raises:
            Rejected: the release has no recommender or it is not loaded, the context does not fit, or no retriever answers.
        """
        start = time.perf_counter()
        row, history = await asyncio.gather(self._rows(asked.user), self._histories(asked.user))
        release = row.release if row else self._scorers.active
        there = self._scorers.recommends(release)
        if release is None or there is None:
            raise Rejected(503, "not_ready", "The recommender is not loaded (yet).", retry_s=2)
        if not there:
            raise Rejected(
                409, "no_recommender", "The active release has no recommender; a run of taiji recommend has one."
            )
        found, cached = await self._found(release, asked, history, row)
        if found.wrong_context:
            raise wrong_context(found.wrong_context)
        self._metrics.note_list(found, time.perf_counter() - start, cached=cached)
        items = [
            Recommended(item=item, score=score, source=source)
            for item, score, source in zip(found.items, found.scores, found.sources, strict=True)
        ]
        return RecommendOut(
            release=release,
            items=items,
            unknown_exclusions=list(found.unknown),
            late=list(found.late),
            failed=list(found.failed),
            unranked=found.unranked,
            cached=cached,
            features="row" if found.features == "request" else found.features,
            feature_version=row.version if row and found.features == "request" else None,
            trace=found.trace,
        )

    async def _found(
        self, release: str, asked: RecommendIn, history: UserHistory, row: StoredRow | None
    ) -> tuple[RecommendResult, bool]:
        """Return the result, and whether it was made before; every event, feature row and erasure of the user makes another key."""
        newest = history.events[-1].id if history.events else ""
        version = row.version if row else None
        key = (release, version, history.seen, newest, history.forgotten, asked.model_dump_json())
        usable = self._settings.cache_s > 0 and not asked.trace
        found = self._cache.get(key, time.monotonic()) if usable else None
        if found is not None:
            return found, True
        features = json.loads(row.body()) if row else None
        request = RecommendRequest(history, asked.k, tuple(asked.exclude), asked.context, asked.trace, features)
        try:
            found = await self._lists((release, request))
        except ResourceError:
            raise Rejected(503, "no_retriever", "No retriever answered in time; try again.", retry_s=1) from None
        if usable and not (found.late or found.failed or found.unranked):
            self._cache.put(key, found, time.monotonic())
        return found, False

    def _recommend(self, asked: Sequence[Question]) -> list[RecommendResult]:
        found = self._scorers.recommend(asked)
        self._metrics.note_cascade(found)
        return found

    def close(self) -> None:
        """End the thread."""
        self._lists.close()


def wrong_context(wrong: dict[str, str]) -> Rejected:
    """Return the answer to a context that does not fit the log, from column to reason."""
    return Rejected(
        422,
        "context",
        f"The context does not fit the log: {'; '.join(sorted(set(wrong.values())))}.",
        places=[f"/context/{name}" for name in list(wrong)[:20]],
    )
