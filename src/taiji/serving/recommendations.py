"""Responses to requests for recommendation lists: caches, micro-batches and metrics."""

from __future__ import annotations

import json
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, replace
from typing import Literal

from taiji.cascade.result_cache import ResultCache
from taiji.core.errors import ResourceError
from taiji.serving.admission import MOST, Admission
from taiji.serving.batching import Batcher, Overloaded
from taiji.serving.cache_policies import Situation, make_policy
from taiji.serving.gate import Rejected
from taiji.serving.kept_lists import SHARE, KeptDiary, KeptList, KeptLists, Missing
from taiji.serving.schemas import Recommended, RecommendIn, RecommendOut
from taiji.serving.scorers import Scorers
from taiji.serving.service_metrics import Metrics
from taiji.serving.settings import RecommendServingSettings
from taiji.serving.types import RecommendRequest, RecommendResult, StoredRow, UserHistory

Question = tuple[str, RecommendRequest]
BATCH = 8
"""Largest number of requests in one pass of the cascade. In a larger batch, the first request would wait too long."""


@dataclass(frozen=True, slots=True)
class Answer:
    """Result of a request, with its origin: the cascade, the cache or the kept lists.

    Attributes:
        made_at: microseconds since the epoch.
        feature_version: version of the feature row that was read, if any.
    """

    result: RecommendResult
    made_at: int
    feature_version: int | None
    origin: Literal["cascade", "cache", "kept"] = "cascade"


class Recommendations:
    """Responses of one process to requests for lists.

    Args:
        scorers: models of the releases.
        rows, histories: readers of a user's newest feature row and of the user's events.
        settings: settings of caches and time budget.
        metrics: metrics in which every response is recorded.
        clock: function that returns microseconds since the epoch.
        admission: admission control, which receives the time of each batch.
        patience_s: longest waiting time of a request, in seconds; see :class:`~taiji.serving.batching.Batcher`.

    Raises:
        ConfigError: the policy of the settings cannot be created.
    """

    def __init__(
        self,
        scorers: Scorers,
        rows: Callable[[str], Awaitable[StoredRow | None]],
        histories: Callable[[str], Awaitable[UserHistory]],
        settings: RecommendServingSettings,
        metrics: Metrics,
        clock: Callable[[], int],
        admission: Admission,
        patience_s: float = float("inf"),
    ) -> None:
        self._scorers, self._rows, self._histories, self._metrics = scorers, rows, histories, metrics
        self._settings, self._clock, self._admission = settings, clock, admission
        self._policy = make_policy(settings.policy, settings.policy_settings)
        self._cache: ResultCache[Answer] = ResultCache(settings.cache_entries, settings.cache_s)
        self._kept = KeptLists(settings.kept_users, settings.kept_s)
        self._computing = 0
        self._diary = KeptDiary()
        self._lists: Batcher[Question, RecommendResult] = Batcher(
            self._recommend, BATCH, MOST, apart=True, patience_s=patience_s, told=admission.note
        )

    async def answer(self, asked: RecommendIn, busy: Overloaded | None = None) -> RecommendOut:
        """Return the requested list.

        Args:
            asked: the request.
            busy: error to raise for lack of capacity, unless a cached or kept list is shown; None if there is capacity.

        Raises:
            Rejected: the release has no recommender, the recommender is not loaded, the context does not fit the log,
                or no retriever responds in time.
            Overloaded: no list can be computed in time, and neither a cached nor a kept list is shown.
        """
        start = time.perf_counter()
        # The history is read first, so that the row is never older than an erasure that the history shows.
        history = await self._histories(asked.user)
        row = await self._rows(asked.user)
        release = row.release if row else self._scorers.active
        there = self._scorers.recommends(release)
        if release is None or there is None:
            raise Rejected(503, "not_ready", "The recommender is not loaded yet, or could not be loaded.", retry_s=2)
        if not there:
            raise Rejected(
                409, "no_recommender", "The active release has no recommender; a run of taiji recommend has one."
            )
        answer = await self._found(release, asked, history, row, busy)
        found = answer.result
        if found.wrong_context:
            raise wrong_context(found.wrong_context)
        self._metrics.note_list(found, time.perf_counter() - start, answer.origin)
        items = [
            Recommended(item=item, score=score, source=source)
            for item, score, source in zip(found.items, found.scores, found.sources, strict=True)
        ]
        return RecommendOut(
            release=release,
            known_user=self._scorers.knows(release, history),
            items=items,
            unknown_exclusions=list(found.unknown),
            late=list(found.late),
            failed=list(found.failed),
            unranked=found.unranked,
            cached=answer.origin != "cascade",
            kept=answer.origin == "kept",
            made_at=answer.made_at,
            age_s=0.0 if answer.origin == "cascade" else max(0.0, (self._clock() - answer.made_at) / 1e6),
            features="row" if found.features == "request" else found.features,
            feature_version=answer.feature_version,
            trace=found.trace,
        )

    def forget(self, user: str) -> None:
        """Drop the kept lists of a user."""
        self._kept.forget(user)

    async def _found(
        self, release: str, asked: RecommendIn, history: UserHistory, row: StoredRow | None, busy: Overloaded | None
    ) -> Answer:
        """Return the response from the cache, the kept lists or the cascade.

        Every new event, feature row or erasure of the user changes the cache key, so no cached list is outdated.
        """
        newest = history.events[-1].id if history.events else ""
        version = row.version if row else None
        key = (release, version, history.seen, newest, history.forgotten, asked.model_dump_json())
        usable = self._settings.cache_s > 0 and not asked.trace
        found = self._cache.get(key, time.monotonic()) if usable else None
        if found is not None and all(end > history.as_of for end in found.result.until):
            return replace(found, origin="cache")
        request = RecommendRequest(
            history, asked.k, tuple(asked.exclude), asked.context, asked.trace, spare=self._settings.keeps
        )
        if shown := self._shown_again(release, request, room=busy is None):
            return shown
        if busy is not None:
            raise busy
        request = replace(request, features=json.loads(row.body()) if row else None)
        try:
            result = await self._computed(release, request)
        except Overloaded:
            if shown := self._shown_again(release, request, room=False):
                return shown
            raise
        feature_version = version if result.features == "request" else None
        made = Answer(replace(result, spare=None), self._clock(), feature_version)
        if not result.wrong_context:
            if self._settings.keeps:
                self._kept.keep(asked.user, KeptList.of(release, request, result, made.made_at, feature_version))
            if usable and not (result.late or result.failed or result.unranked):
                self._cache.put(key, made, time.monotonic())
        return made

    async def _computed(self, release: str, request: RecommendRequest) -> RecommendResult:
        self._computing += 1
        try:
            return await self._lists((release, request))
        except ResourceError:
            raise Rejected(503, "no_retriever", "No retriever responded in time; try again.", retry_s=1) from None
        finally:
            self._computing -= 1

    def _shown_again(self, release: str, request: RecommendRequest, *, room: bool) -> Answer | None:
        """Return the user's kept list if there is one and the policy chooses it."""
        if request.trace:  # a trace describes a newly made list
            return None
        now = self._clock()
        kept = self._kept.find(release, request, now, SHARE if room else 0.0)  # a short list is better than no list
        if isinstance(kept, Missing):
            if not room:
                self._metrics.note_missing(kept)
            return None
        made, result = kept
        age_s, since = (now - made.made_at) / 1e6, request.history.seen - made.seen
        load = self._computing / self._admission.room
        if not self._policy.from_cache(Situation(room, load, now, age_s, request.history.seen, since)):
            return None
        self._metrics.note_kept(release, age_s)
        self._diary.note(release, age_s)
        return Answer(result, made.made_at, made.feature_version, "kept")

    def _recommend(self, asked: Sequence[Question]) -> list[RecommendResult]:
        found = self._scorers.recommend(asked)
        self._metrics.note_cascade(found)
        return found

    def close(self) -> None:
        """Stop the thread."""
        self._lists.close()


def wrong_context(wrong: dict[str, str]) -> Rejected:
    """Return the rejection of a context that does not fit the log; ``wrong`` maps columns to reasons."""
    return Rejected(
        422,
        "context",
        f"The context is invalid: {'; '.join(sorted(set(wrong.values())))}.",
        places=[f"/context/{name}" for name in list(wrong)[:20]],
    )
