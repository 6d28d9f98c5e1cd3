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
from numpy.typing import NDArray

from taiji.core.component import NO_ITEM, Requests, Slate
from taiji.data.dataset import Dataset
from taiji.features.quantizer import ProductQuantizer
from taiji.models.ranking import Ranker
from taiji.models.ranking.train import load_ranker
from taiji.serving.live_dataset import World
from taiji.serving.live_statistics import LiveStatistics
from taiji.serving.types import FeaturesOnly, RankRequest, RankResult

Array = NDArray[Any]


class RunScorer:
    """See :class:`taiji.serving.types.Scorer`.

    Args:
        world: the run's data set.
        plain, featured: rankers without and with features, bound to that data set; None where the run has no features.
        quantizer_version: rows of another version are not used; their ids mean something else.
    """

    def __init__(self, world: World, plain: Ranker, featured: Ranker | None, quantizer_version: str) -> None:
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
        context = {
            n: v.to_numpy() for n, v in self._world.context_frame([r.context for r in requests]).to_dict().items()
        }
        asked = Requests(np.arange(len(requests)), np.array([request.history.as_of for request in requests]), context)
        items = [np.array([self._world.items[item] for item in request.items]) for request in requests]
        usable = [
            request.features
            if self._featured is not None
            and request.features
            and request.features["quantizer_version"] == self._quantizer_version
            else None
            for request in requests
        ]
        past = LiveStatistics(self._world, live, [request.history for request in requests])
        plain = _scores(self._plain.bound_to(live, past), asked, items)
        featured = plain
        if self._featured is not None:
            featured = _scores(self._featured.bound_to(live, past), self._with_features(asked, usable), items)
        return [
            RankResult(without, with_features if features else None)
            for without, with_features, features in zip(plain, featured, usable)
        ]

    def _with_features(self, asked: Requests, rows: Sequence[dict[str, Any] | None]) -> Requests:
        known = self._world.items
        columns = {
            "ids": [row["ids"] or None if row else None for row in rows],
            "neighbour_items": [
                [known[i] for i in row["neighbour_items"] if i in known] if row else None for row in rows
            ],
            "vector": [row.get("vector") if row else None for row in rows],
        }
        made = {name: np.empty(len(rows), dtype=object) for name in columns}
        for name, values in columns.items():
            for number, value in enumerate(values):
                made[name][number] = value
        return Requests(asked.user, asked.time, {**asked.columns, **made})


def _among(found: RankResult, known: Sequence[bool]) -> RankResult:
    """Return a result with None at the places of candidates that were not scored."""

    def spread(scores: list[float | None]) -> list[float | None]:
        rest = iter(scores)
        return [next(rest) if there else None for there in known]

    other = found.with_features
    return RankResult(spread(found.without_features), None if other is None else spread(other))


def _scores(ranker: Ranker, asked: Requests, items: Sequence[Array]) -> list[list[float | None]]:
    """Return the goal of each request's candidates; requests of about as many are scored together, so that little is padded."""
    found: list[list[float | None]] = [[] for _ in items]
    lengths = np.array([len(own) for own in items])
    sizes = np.ceil(np.log2(lengths))
    for size in np.unique(sizes):
        rows = [int(row) for row in np.flatnonzero(sizes == size)]
        slate = np.full((len(rows), lengths[rows].max()), NO_ITEM)
        for place, row in enumerate(rows):
            slate[place, : lengths[row]] = items[row]
        scores = ranker.score(ranker.encode(asked.take(np.array(rows))), Slate(slate))[ranker.goal]
        for place, row in enumerate(rows):
            found[row] = scores[place, : lengths[row]].tolist()
    return found


def scorer_of(world: World) -> RunScorer:
    """Load the rankers of a run with features.

    Raises:
        ArtifactError: a stage is not finished, or damaged.
        FeaturesOnly: a ranker that cannot be asked about users as they are now.
    """
    run = world.run
    plain = load_neural(run / "evaluation_ranker" / "ranker", world.dataset)
    featured = load_neural(run / "ranking" / "taiji", world.dataset)
    return RunScorer(world, plain, featured, ProductQuantizer.load(run / "features" / "taiji-quantizer").version)


def load_neural(folder: Path, dataset: Dataset) -> Ranker:
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
