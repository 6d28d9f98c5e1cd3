"""Recommender of a run, applied to the current state of users.

The cascade is the one that the run evaluated. Retrievers and ranker read users' newest histories from the requests.
They read item data from the run.
"""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from taiji.cascade.assembly import fitted_fusion, item_vectors, make_cascade, make_fuser
from taiji.cascade.cascade import Cascade, Recommendation
from taiji.cascade.settings import RecommendSettings
from taiji.core.component import NO_ITEM, DatasetFuser, Predictions, Requests, Slate
from taiji.core.errors import ArtifactError, ResourceError
from taiji.data.availability import Availability
from taiji.data.dataset import Dataset
from taiji.data.user_subset import NEW, UserSubset
from taiji.features.other_run import StoredFeatures
from taiji.models.fusion.learnt_fusion import LearntFusion
from taiji.models.ranking import Ranker
from taiji.models.ranking.inputs import RequestState
from taiji.models.retrieval.retriever import CatalogueRetriever
from taiji.serving.live_dataset import World
from taiji.serving.live_statistics import LiveStatistics
from taiji.serving.recommender_files import recommender_settings
from taiji.serving.run_rows import RunRows
from taiji.serving.scorer import RunScorer, feature_columns, load_neural, request_columns, usable_features
from taiji.serving.types import (
    IntentRequest,
    RankRequest,
    RankResult,
    RecommendRequest,
    RecommendResult,
    StudentRow,
    UserHistory,
)

Array = NDArray[Any]


@dataclass(frozen=True, eq=False)
class LiveRequests(Requests):
    """Requests with the data of their users.

    Attributes:
        live: dataset to which the dense user ids of the requests refer.
        past: statistics of these users.
    """

    live: UserSubset = field(kw_only=True)
    past: LiveStatistics = field(kw_only=True)

    @property
    def same_user(self) -> Array:
        """Numbers (B,) that are equal for requests of the same user.

        The number is the user's dense id in the run; for a new user, it is derived from the text id.
        """
        numbers, base = self.live.numbers[self.user], self.live.base.n_users
        new = [base + zlib.crc32(self.live.names[user].encode()) for user in self.user.tolist()]
        return np.where(numbers == NEW, new, numbers)

    def take(self, index: Array | slice) -> LiveRequests:
        """Return the requests at ``index``."""
        columns = {name: values[index] for name, values in self.columns.items()}
        return LiveRequests(self.user[index], self.time[index], columns, live=self.live, past=self.past)


class LiveRetriever:
    """Retriever that reads the histories in the requests."""

    def __init__(self, model: CatalogueRetriever) -> None:
        self.model = model

    def retrieve(self, requests: Requests, k: int) -> Slate:
        """Return at most ``k`` candidates per request."""
        assert isinstance(requests, LiveRequests)
        return self.model.bound_to(requests.live).retrieve(requests, k)


class LiveFuser:
    """Fusion that looks up the users of the requests."""

    def __init__(self, model: DatasetFuser) -> None:
        self.model = model

    def fuse(self, predictions: Predictions, requests: Requests) -> Array:
        """Return scores (B, M)."""
        assert isinstance(requests, LiveRequests)
        return self.model.bound_to(requests.live).fuse(predictions, requests)


@dataclass(frozen=True, eq=False)
class LiveState:
    """Ranker bound to the users of the requests, and the encoded requests."""

    ranker: Ranker
    state: RequestState

    def __len__(self) -> int:
        return len(self.state)


class LiveRanker:
    """Scorer that reads the histories in the requests."""

    def __init__(self, ranker: Ranker) -> None:
        self.ranker = ranker

    def encode(self, requests: Requests) -> LiveState:
        """Bind the ranker to the users of the requests, and encode the requests."""
        assert isinstance(requests, LiveRequests)
        bound = self.ranker.bound_to(requests.live, requests.past)
        return LiveState(bound, bound.encode(requests))

    def score(self, state: LiveState, slate: Slate) -> Predictions:
        """Return the prediction of every head for every position of the slate."""
        return state.ranker.score(state.state, slate)


class RunRecommender:
    """See :class:`taiji.serving.types.Recommender`.

    Args:
        world: the run's dataset.
        cascade: cascade of :class:`LiveRetriever` and :class:`LiveRanker`.
        length: default length of a list.
        rows: feature rows stored with the ranker, for users without a usable row in the service; None if the ranker was
            trained without features.
    """

    def __init__(self, world: World, cascade: Cascade, length: int, rows: RunRows | None = None) -> None:
        self.world, self.cascade, self.length, self.rows = world, cascade, length, rows
        self.names = tuple(cascade.pool.retrievers)
        self._available = Availability.of(world.dataset)

    def recommend(self, requests: Sequence[RecommendRequest]) -> list[RecommendResult]:
        """Return a list per request; empty for a request whose context does not fit the log."""
        wrong = [self.world.wrong_context(request.context) for request in requests]
        results = [RecommendResult(wrong_context=bad) for bad in wrong]
        kinds: dict[tuple[int, bool, bool], list[int]] = {}
        for place, (request, bad) in enumerate(zip(requests, wrong)):
            if not bad:
                spare = request.spare and not request.trace and not self.cascade.rerankers
                kinds.setdefault((request.length or self.length, request.trace, spare), []).append(place)
        for (length, trace, spare), places in kinds.items():
            for place, result in zip(places, self._answers([requests[at] for at in places], length, trace, spare)):
                results[place] = result
        return results

    def has_user(self, history: UserHistory) -> bool:
        """Return whether the run's data contain the user; False for an erased user."""
        return self.world.has_user(history)

    def _answers(
        self, requests: Sequence[RecommendRequest], length: int, trace: bool, spare: bool
    ) -> list[RecommendResult]:
        known = self.world.items
        excluded = [[known[item] for item in request.exclude if item in known] for request in requests]
        exclude = np.full((len(requests), max(map(len, excluded))), NO_ITEM)
        for row, items in enumerate(excluded):
            exclude[row, : len(items)] = items
        requests = [replace(request, features=self._usable(request)) for request in requests]
        own = [self.rows.of(r.history) if self.rows and r.features is None else None for r in requests]
        rows = [request.features or kept for request, kept in zip(requests, own)]
        most = 2 * length if spare else length  # without re-rankers, a longer list starts with the shorter one
        found = self.cascade.recommend(self._live(requests, rows), most, exclude=exclude, trace=trace)
        return [
            replace(
                self._result(row, request, found, length),
                spare=self._listed(row, found, slice(length, most)) if spare else None,
                features="request" if request.features else "run" if own[row] else "none",
            )
            for row, request in enumerate(requests)
        ]

    def _usable(self, request: RecommendRequest) -> dict[str, Any] | None:
        return usable_features(request.features, self.rows.quantizer_version if self.rows else "")

    def _live(self, requests: Sequence[RecommendRequest], rows: Sequence[dict[str, Any] | None]) -> LiveRequests:
        histories = [request.history for request in requests]
        live = self.world.of(histories)
        columns = request_columns(self.world, [request.context for request in requests])
        columns |= feature_columns(self.world, rows)
        times = [history.as_of for history in histories]
        past = LiveStatistics(self.world, live, histories)
        return LiveRequests(np.arange(len(requests)), np.array(times), columns, live=live, past=past)

    def _listed(self, row: int, found: Recommendation, places: slice) -> RecommendResult:
        """Return the items at some positions of a list."""
        slate, names = found.slate, self.world.item_names
        assert slate.scores is not None and slate.source is not None
        there = np.flatnonzero(slate.mask[row])[places]
        items = slate.items[row, there]
        return RecommendResult(
            items=tuple(names[item] for item in items.tolist()),
            scores=tuple(slate.scores[row, there].tolist()),
            sources=tuple(self.names[number] for number in slate.source[row, there].tolist()),
            until=tuple(self._available.end[items].tolist()) if self._available.bounded else (),
        )

    def _result(self, row: int, request: RecommendRequest, found: Recommendation, length: int) -> RecommendResult:
        names, known = self.world.item_names, self.world.items
        return replace(
            self._listed(row, found, slice(length)),
            unknown=tuple(dict.fromkeys(item for item in request.exclude if item not in known)),
            late=tuple(found.late),
            failed=tuple(found.failed),
            unranked=int(found.unranked[row]),
            seconds=found.seconds,
            trace=None if found.trace is None else _trace(found.trace.filter(pl.col("request") == row), names),
        )


class RankingRecommender(RunRecommender):
    """Recommender of a run that can also score given candidates.

    Args:
        world, cascade, length, rows: as for :class:`RunRecommender`.
        scorer: scorer of given candidates.
    """

    def __init__(
        self, world: World, cascade: Cascade, length: int, scorer: RunScorer, rows: RunRows | None = None
    ) -> None:
        super().__init__(world, cascade, length, rows)
        self._scorer = scorer

    def score(self, requests: Sequence[RankRequest]) -> list[RankResult]:
        """Return one result per request, in order."""
        return self._scorer.score(requests)

    @property
    def says_intents(self) -> bool:
        """True if the run has a student model that predicts intents."""
        return self._scorer.says_intents

    def intents(self, requests: Sequence[IntentRequest]) -> list[StudentRow | None]:
        """Return the student model's intents for users whose intents are missing or outdated; None for others."""
        return self._scorer.intents(requests)


def recommender_of(world: World, scorer: RunScorer | None) -> RunRecommender:
    """Load the components of a run of ``taiji recommend``, and compose them as in the run.

    Args:
        world: the run's dataset.
        scorer: rankers of the run that score given candidates; None uses the recommender's own ranker, if it has one.

    Raises:
        ArtifactError: a stage is not finished, or damaged.
    """
    run = world.run
    settings = recommender_settings(run, world.config)
    retrievers = {
        name: CatalogueRetriever.load(_made(run, f"retriever-{name}") / "retriever", world.dataset)
        for name in settings.retrievers
    }
    ranker = load_neural(_made(run, "candidate_ranker") / "ranker", world.dataset) if settings.rank else None
    embedder, fuser = world.config["embedder"], _fuser(run, settings, world.dataset)
    cascade = make_cascade(
        settings,
        world.dataset,
        {name: LiveRetriever(model) for name, model in retrievers.items()},
        None if ranker is None else LiveRanker(ranker),
        item_vectors(world.dataset, embedder["name"], embedder["device"]) if settings.rerank != "none" else None,
        fuser=None if fuser is None else LiveFuser(fuser),
    )
    features = StoredFeatures.load(run / "candidate_ranker") if ranker is not None else None
    rows = None if features is None else RunRows(world, features)
    if scorer is None and ranker is not None:
        scorer = RunScorer(world, ranker, ranker if rows else None, rows.quantizer_version if rows else "")
    if scorer is None:
        made = RunRecommender(world, cascade, settings.length)
    else:
        made = RankingRecommender(world, cascade, settings.length, scorer, rows)
    now = world.dataset.last_time + 1
    with suppress(ResourceError):  # warm-up: a retriever may time out while it is built on first use
        made.recommend([RecommendRequest(UserHistory("", now))])
    return made


def _fuser(run: Path, settings: RecommendSettings, dataset: Dataset) -> DatasetFuser | None:
    """Return the run's fusion if it looks up columns in a dataset, as every fitted fusion does; otherwise None."""
    if not settings.rank:
        return None
    made = make_fuser(settings)
    if fitted_fusion(settings):
        assert isinstance(made, LearntFusion)
        return type(made).load(_made(run, "fusion") / "fuser", dataset)
    return made if isinstance(made, DatasetFuser) else None


def _made(run: Path, stage: str) -> Path:
    """Return the folder of a finished stage."""
    if not (run / stage).is_dir():
        raise ArtifactError(
            "The run's recommender is not complete.",
            where=str(run / stage),
            fix=f"finish it with taiji recommend CONFIG --name {run.name} --resume",
        )
    return run / stage


def _trace(rows: pl.DataFrame, names: Sequence[str]) -> list[dict[str, Any]]:
    """Return a trace as JSON objects with text ids; NaN and infinite values become null."""
    items = pl.Series("item", [names[item] for item in rows["item"]], dtype=pl.String)
    floats = [name for name, kind in rows.schema.items() if kind.is_float()]
    finite = [pl.when(pl.col(name).is_finite()).then(pl.col(name)) for name in floats]
    return rows.drop("request").with_columns(items, *finite).to_dicts()
