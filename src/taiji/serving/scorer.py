"""The rankers of a run, asked about users as they are now.

The user's side of the ranker's input (sequence, habits) is computed from the run's log and the events since; the items'
side (popularity, rates) is the run's, as fresh as its data. Refreshing that is a new run, rolled out beside the old one.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from taiji.data.dataset import Dataset
from taiji.data.history import Prices
from taiji.data.statistics import NAMES, Statistics, statistics_of
from taiji.features.quantizer import ProductQuantizer
from taiji.models.ranking import Ranker
from taiji.models.ranking.train import load_ranker
from taiji.serving.live_dataset import World
from taiji.serving.settings import ServingSettings
from taiji.serving.types import FeaturesOnly, RankRequest, RankResult, UserHistory

USER_SIDE = tuple(
    name
    for name in NAMES
    if name.startswith(("user_clicks", "user_days_since", "pair_clicks", "pair_days_since", "user_l"))
)
"""Statistics that depend on the user's own clicks only."""


class RunScorer:
    """See :class:`taiji.serving.types.Scorer`.

    Args:
        world: the run's data set.
        plain, featured: rankers without and with features, bound to that data set.
        quantizer_version: rows of another version are not used; their ids mean something else.
    """

    def __init__(self, world: World, plain: Ranker, featured: Ranker, quantizer_version: str) -> None:
        self._world, self._plain, self._featured, self._quantizer_version = world, plain, featured, quantizer_version

    def score(self, requests: Sequence[RankRequest]) -> list[RankResult]:
        """CTCVR per candidate; None for an unknown one, and nothing for a request whose context does not fit."""
        known = self._world.items
        wrong = [self._world.wrong_context(request.context) for request in requests]
        asked = [
            None if bad else replace(request, items=tuple(item for item in request.items if item in known))
            for request, bad in zip(requests, wrong)
        ]
        scored = iter(self._score([request for request in asked if request and request.items]))
        results = []
        for request, kept, bad in zip(requests, asked, wrong):
            found = next(scored) if kept and kept.items else RankResult([], None, bad)
            results.append(found if bad else _among(found, [item in known for item in request.items]))
        return results

    def _score(self, requests: Sequence[RankRequest]) -> list[RankResult]:
        if not requests:
            return []
        live = self._world.of([request.history for request in requests])
        sizes = [len(request.items) for request in requests]
        frame = pl.DataFrame(
            {
                "user": np.repeat(np.arange(len(requests)), sizes),
                "item": [self._world.items[item] for request in requests for item in request.items],
                "time": np.repeat([request.history.as_of for request in requests], sizes),
            }
        )
        context = self._world.context_frame([request.context for request in requests])
        if context.width:
            frame = pl.concat([frame, context[np.repeat(np.arange(len(requests)), sizes)]], how="horizontal")
        usable = [
            request.features
            if request.features and request.features["quantizer_version"] == self._quantizer_version
            else None
            for request in requests
        ]
        past = LiveStatistics(self._world, live, [request.history for request in requests])
        plain = _scores(self._plain.bound_to(live, past), frame)
        featured = _scores(self._featured.bound_to(live, past), self._with_features(frame, usable, sizes))
        results, start = [], 0
        for size, features in zip(sizes, usable):
            end = start + size
            results.append(RankResult([*plain[start:end]], [*featured[start:end]] if features else None))
            start += size
        return results

    def _with_features(
        self, frame: pl.DataFrame, rows: Sequence[dict[str, Any] | None], sizes: Sequence[int]
    ) -> pl.DataFrame:
        known = self._world.items
        ids = [row["ids"] or None if row else None for row in rows]
        items = [[known[item] for item in row["neighbour_items"] if item in known] if row else None for row in rows]
        vectors = [row.get("vector") if row else None for row in rows]
        features = pl.DataFrame(
            {"ids": ids, "neighbour_items": items, "vector": vectors},
            schema={"ids": pl.List(pl.UInt16), "neighbour_items": pl.List(pl.UInt32), "vector": pl.List(pl.Float32)},
        )
        return pl.concat([frame, features[np.repeat(np.arange(len(rows)), sizes)]], how="horizontal")


class LiveStatistics:
    """Statistics with the users' side from their newest state and the items' side from the run's log.

    Args:
        world: the run's dataset. live: the users asked about, numbered from 0. histories: what is known about each of them.
    """

    def __init__(self, world: World, live: Dataset, histories: Sequence[UserHistory]) -> None:
        self._world, self._live = world, live
        strangers = world.dataset.n_users  # an id that never occurs in the run's log
        self._numbers = np.array(
            [strangers if (number := world.known(history)) is None else number for history in histories], np.int64
        )
        self._last: tuple[tuple[np.ndarray, ...], dict[str, np.ndarray]] | None = None

    def at(self, users: np.ndarray, items: np.ndarray, times: np.ndarray) -> dict[str, np.ndarray]:
        """Return every statistic of rows, (N,) float32 each; the answer to the same question is not computed twice."""
        asked = users, items, times
        if self._last is None or not all(map(np.array_equal, self._last[0], asked)):
            self._last = asked, self._compute(*asked)
        return self._last[1]

    def _compute(self, users: np.ndarray, items: np.ndarray, times: np.ndarray) -> dict[str, np.ndarray]:
        run = statistics_of(self._world.dataset).at(self._numbers[users], items, times)
        # Only the items in play are looked at, renumbered: counting is by user and category, whatever the numbers are.
        seen = self._live.events["item"].to_numpy().astype(np.int64)
        used, place = np.unique(np.concatenate([seen, items]), return_inverse=True)
        events = self._live.events.with_columns(item=pl.Series(place[: len(seen)], dtype=pl.UInt32))
        kept = self._live.items[used]
        own = Statistics(events, kept, Prices.from_frames(events, kept), self._world.dataset.levels).at(
            users, place[len(seen) :], times
        )
        return {name: own[name] if name in USER_SIDE else run[name] for name in NAMES}


def _among(found: RankResult, known: Sequence[bool]) -> RankResult:
    """Return a result with None at the places of candidates that were not scored."""

    def spread(scores: list[float | None]) -> list[float | None]:
        rest = iter(scores)
        return [next(rest) if there else None for there in known]

    other = found.with_features
    return RankResult(spread(found.without_features), None if other is None else spread(other))


def _scores(ranker: Ranker, frame: pl.DataFrame) -> list[float]:
    return ranker.predict(frame)[ranker.goal].to_list()


def from_run(run: Path, settings: ServingSettings) -> RunScorer:
    """Load the rankers of a finished run."""
    del settings  # the run's own configuration says what its rankers are
    world = World(run)
    plain = _neural(run / "evaluation_ranker" / "ranker", world.dataset)
    featured = _neural(run / "ranking" / "taiji", world.dataset)
    return RunScorer(world, plain, featured, ProductQuantizer.load(run / "features" / "taiji-quantizer").version)


def _neural(folder: Path, dataset: Dataset) -> Ranker:
    """Read a ranker that can be asked about users as they are now."""
    found = load_ranker(folder, dataset)
    if not isinstance(found, Ranker):
        raise FeaturesOnly(
            "The service scores with neural rankers only.",
            where=str(folder),
            expected="a subclass of taiji.models.ranking.ranker.Ranker",
            found=f"{type(found).__module__}:{type(found).__qualname__}",
            fix="choose another ranking.model for the run, or serve features alone and rank with them yourself",
        )
    return found
