"""Score given candidates with the rankers of a run and the current state of users.

The user side of the ranker's input (sequence, habits) is computed from the run's log and all later events. The item
side (popularity, rates) comes from the run's log alone; to update it, make a new run and roll it out.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import repeat
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from taiji.core.component import NO_ITEM, Requests, Slate
from taiji.data.dataset import Dataset
from taiji.data.intent_rows import INTENTS
from taiji.features.settings import FeatureSettings
from taiji.features.student import STUDENT, IntentStudent
from taiji.models.codes.product import ProductQuantizer
from taiji.models.ranking import Ranker
from taiji.models.ranking.equal_fields import equal_fields
from taiji.models.ranking.train import load_ranker
from taiji.serving.live_dataset import World
from taiji.serving.live_statistics import LiveStatistics
from taiji.serving.types import (
    ContextValue,
    FeaturesOnly,
    IntentRequest,
    Intents,
    RankRequest,
    RankResult,
    StudentRow,
    UserHistory,
)

Array = NDArray[Any]


class RunScorer:
    """See :class:`taiji.serving.types.Scorer`.

    Args:
        world: the run's dataset.
        plain: ranker that scores without features, bound to the run's dataset.
        featured: ranker that scores with features, bound to the run's dataset; None if the run has no features. It may
            be the same ranker as ``plain``.
        quantizer_version: version of the quantiser. Rows of another version are not used, because their ids have
            different meanings.
        student: model that computes missing or outdated intents of users; None if the run has no student.
        oldest_s: seconds after which a row's intents are outdated; None if they never are.
    """

    def __init__(
        self,
        world: World,
        plain: Ranker,
        featured: Ranker | None,
        quantizer_version: str,
        student: IntentStudent | None = None,
        oldest_s: float | None = None,
    ) -> None:
        self._world, self._plain, self._featured, self._quantizer_version = world, plain, featured, quantizer_version
        self._student, self._oldest_s = student, oldest_s

    def score(self, requests: Sequence[RankRequest]) -> list[RankResult]:
        """Return the ranker's prediction of its goal for each candidate of each request.

        The goal is CTCVR or, without a conversion task, the first label, unless the ranker defines another one.
        Candidates that are not in the catalogue get None. A request whose context does not fit the log gets no scores.
        """
        wrong = [self._world.wrong_context(request.context) for request in requests]
        numbers = [self._numbers(request.items) for request in requests]
        known = [found != NO_ITEM for found in numbers]
        asked = [row for row, bad in enumerate(wrong) if not bad and known[row].any()]
        scored = dict(
            zip(asked, self._score([requests[row] for row in asked], [numbers[row][known[row]] for row in asked]))
        )
        return [
            RankResult([], None, wrong[row])
            if wrong[row]
            else _among(scored[row], known[row])
            if row in scored
            else RankResult([None] * len(known[row]))
            for row in range(len(requests))
        ]

    def has_user(self, history: UserHistory) -> bool:
        """Return whether the run's data contain the user; False for an erased user."""
        return self._world.has_user(history)

    @property
    def says_intents(self) -> bool:
        """True if the run has a student."""
        return self._student is not None

    def intents(self, requests: Sequence[IntentRequest]) -> list[StudentRow | None]:
        """Return the student model's intents for users whose intents are missing or outdated; None for others.

        The student reads the user's history up to now. The result replaces only the intents of a row; its other
        features stay, even if they have a different quantiser version.
        """
        student = self._student
        if student is None:
            return [None] * len(requests)
        histories = [request.history for request in requests]
        times = np.array([history.as_of for history in histories], dtype=np.int64)
        places = self._gaps([request.features for request in requests], times)
        said = student.rows(
            self._world.of([histories[place] for place in places]), np.arange(len(places)), times[places]
        )
        found: list[StudentRow | None] = [None] * len(requests)
        for place, row in zip(places.tolist(), said):
            history, intents = histories[place], Intents.of(dict(zip(INTENTS, row)))
            if intents is not None:
                found[place] = StudentRow(
                    history.user, history.as_of, history.seen, intents, student.version, self._quantizer_version
                )
        return found

    def _gaps(self, rows: Sequence[dict[str, Any] | None], times: Array) -> Array:
        """Return the positions of rows whose intents are missing or outdated."""
        return np.flatnonzero(
            [row is None or not row.get("intent_weights") or self._is_old(row, at) for row, at in zip(rows, times)]
        )

    def _numbers(self, items: Sequence[str]) -> Array:
        """Return the catalogue indices of items; NO_ITEM for an item that is not in the catalogue."""
        return np.fromiter(map(self._world.items.get, items, repeat(NO_ITEM)), np.int64, len(items))

    def _score(self, requests: Sequence[RankRequest], numbers: Sequence[Array]) -> list[RankResult]:
        """Return one result per request, for items given by catalogue index."""
        if not requests:
            return []
        alike = np.ceil(np.log2([len(items) for items in numbers]))  # grouped by length, slates need little padding
        found: dict[int, RankResult] = {}
        for size in np.unique(alike):
            rows = np.flatnonzero(alike == size).tolist()
            found.update(zip(rows, self._score_alike([requests[row] for row in rows], [numbers[row] for row in rows])))
        return [found[row] for row in range(len(requests))]

    def _score_alike(self, requests: Sequence[RankRequest], numbers: Sequence[Array]) -> list[RankResult]:
        """Return one result per request; all requests are scored as one padded batch."""
        histories = [request.history for request in requests]
        live = self._world.of(histories)
        past = LiveStatistics(self._world, live, histories)
        sizes = [len(items) for items in numbers]
        items = np.full((len(requests), max(sizes)), NO_ITEM)
        for row, found in enumerate(numbers):
            items[row, : sizes[row]] = found
        slate, columns = Slate(items), request_columns(self._world, [request.context for request in requests])
        times = np.array([history.as_of for history in histories])

        def scores(ranker: Ranker, columns: Mapping[str, NDArray[Any]]) -> NDArray[np.float64]:
            """Return the predictions (R, M) of the goal; both rankers use the same statistics."""
            bound = ranker.bound_to(live, past)
            return bound.score(bound.encode(Requests(np.arange(len(requests)), times, columns)), slate)[ranker.goal]

        version = self._quantizer_version if self._featured is not None else ""
        usable = [usable_features(request.features, version) for request in requests]
        if self._featured is not None and self._student is not None:
            usable = self._with_student(usable, live, times, self._student)
        plain = scores(self._plain, columns)
        featured = plain
        if self._featured is not None and any(row is not None for row in usable):
            featured = scores(self._featured, columns | feature_columns(self._world, usable))
        return [
            RankResult(plain[row, :size].tolist(), featured[row, :size].tolist() if features else None)
            for row, (size, features) in enumerate(zip(sizes, usable))
        ]

    def _with_student(
        self, rows: Sequence[dict[str, Any] | None], live: Dataset, times: Array, student: IntentStudent
    ) -> list[dict[str, Any] | None]:
        """Return the rows with the student's intents in place of missing or outdated ones.

        If the student finds intents, a missing row is replaced by a row with intents only. If it finds none, outdated
        intents are removed.
        """
        asked = self._gaps(rows, times)
        said = [dict(zip(INTENTS, row)) for row in student.rows(live, asked, times[asked])]
        found = list(rows)
        for place, intents in zip(asked.tolist(), said):
            row = rows[place]
            if intents["intent_weights"]:
                found[place] = {**(row or {"ids": [], "neighbour_items": []}), **intents}
            elif row is not None:
                found[place] = {name: value for name, value in row.items() if name not in INTENTS}
        return found

    def _is_old(self, row: dict[str, Any], time: int) -> bool:
        return self._oldest_s is not None and time - row["as_of"] > round(self._oldest_s * 1e6)


def usable_features(features: dict[str, Any] | None, quantizer_version: str) -> dict[str, Any] | None:
    """Return the feature row if it has the given quantiser version; None otherwise, or if that version is empty."""
    there = quantizer_version and features and features["quantizer_version"] == quantizer_version
    return features if there else None


def request_columns(world: World, contexts: Sequence[Mapping[str, ContextValue]]) -> dict[str, NDArray[Any]]:
    """Return the context columns (R,) for which at least one request has a value.

    A column with missing values is an object array.
    """
    frame = world.context_frame(contexts)
    return {
        name: values.to_numpy() if not values.null_count() else np.array(values.to_list(), dtype=object)
        for name, values in zip(frame.columns, frame)
        if values.null_count() < len(values)
    }


def feature_columns(world: World, rows: Sequence[dict[str, Any] | None]) -> dict[str, NDArray[Any]]:
    """Return the feature columns (R,) of requests as object arrays, with the run's dense item ids.

    A column without any value is left out.
    """
    known = world.items
    found: dict[str, list[list[Any] | None]] = {
        "ids": [(row["ids"] or None) if row else None for row in rows],
        "neighbour_items": [
            [known[item] for item in row["neighbour_items"] if item in known] or None if row else None for row in rows
        ],
        "vector": [(row.get("vector") or None) if row else None for row in rows],
        **{name: [(row.get(name) or None) if row else None for row in rows] for name in INTENTS},
    }
    columns = {}
    for name, values in found.items():
        if any(value is not None for value in values):
            columns[name] = np.empty(len(values), dtype=object)
            columns[name][:] = values
    return columns


def _among(found: RankResult, known: NDArray[np.bool_]) -> RankResult:
    """Expand the scores of the candidates where ``known`` is True to all candidates, with None for the others."""
    if known.all():
        return found

    def spread(scores: list[float | None]) -> list[float | None]:
        places = np.full(len(known), None)
        places[known] = scores
        result: list[float | None] = places.tolist()
        return result

    other = found.with_features
    return RankResult(spread(found.without_features), None if other is None else spread(other))


def scorer_of(world: World) -> RunScorer:
    """Load the rankers of a run with features.

    Raises:
        ArtifactError: a stage is not finished, or damaged.
        FeaturesOnly: the ranker cannot score the current state of users.
    """
    run = world.run
    folders = run / "evaluation_ranker" / "ranker", run / "ranking" / "taiji"
    plain, featured = (load_neural(folder, world.dataset) for folder in folders)
    featured.fieldset.adopt(plain.fieldset, equal_fields(*folders))
    folder = run / "features" / STUDENT
    student = IntentStudent.load(folder) if folder.is_dir() else None
    oldest_s = FeatureSettings.model_validate(world.config["features"]).oldest_s
    version = ProductQuantizer.load(run / "features" / "taiji-quantizer").version
    made = RunScorer(world, plain, featured, version, student, oldest_s)
    _warm(made, world, version)
    return made


def _warm(scorer: RunScorer, world: World, version: str) -> None:
    """Score two requests, so that data built on first use (mainly the log's statistics) exist before the first real
    request."""
    now = world.dataset.last_time + 1
    row = {"quantizer_version": version, "as_of": now, "ids": [], "neighbour_items": []}
    for user in ("", next(iter(world.users), "")):
        scorer.score([RankRequest(UserHistory(user, now), tuple(world.item_names[:2]), row)])


def load_neural(folder: Path, dataset: Dataset) -> Ranker:
    """Load a ranker that can score the current state of users.

    Raises:
        FeaturesOnly: the ranker is not a neural ranker.
    """
    found = load_ranker(folder, dataset)
    if not isinstance(found, Ranker):
        raise FeaturesOnly(
            "The run's ranker is not a neural ranker, so the service cannot score with it.",
            where=str(folder),
            expected="a subclass of taiji.models.ranking.ranker.Ranker",
            found=f"{type(found).__module__}:{type(found).__qualname__}",
            fix="choose another ranking.model for the run, or serve features alone and rank with them yourself",
        )
    return found
