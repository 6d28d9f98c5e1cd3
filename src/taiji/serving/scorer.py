"""The rankers of a run, asked about users as they are now.

The user's side of the ranker's input (sequence, habits) is computed from the run's log and the events since; the items'
side (popularity, rates) is the run's, as fresh as its data. Refreshing that is a new run, rolled out beside the old one.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import polars as pl

from taiji.data.dataset import Dataset
from taiji.data.history import Prices
from taiji.data.statistics import NAMES, NumericFeatures
from taiji.features.quantizer import ProductQuantizer
from taiji.models.ranking import Ranker
from taiji.serving.live_dataset import World
from taiji.serving.settings import ServingSettings
from taiji.serving.types import RankRequest, RankResult

USER_SIDE = [
    NAMES.index(name)
    for name in NAMES
    if name.startswith(("user_clicks", "user_days_since", "pair_clicks", "pair_days_since", "user_l"))
]
"""Numeric features that depend on the user's own clicks only."""


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
        """CTCVR per candidate; a request with unknown items is not scored."""
        unknown = [
            [place for place, item in enumerate(request.items) if item not in self._world.items] for request in requests
        ]
        chosen = [request for request, missing in zip(requests, unknown) if not missing]
        scored = iter(self._score(chosen) if chosen else ())
        return [RankResult(unknown=missing) if missing else next(scored) for missing in unknown]

    def _score(self, requests: Sequence[RankRequest]) -> list[RankResult]:
        live = self._world.of([request.history for request in requests])
        sizes = [len(request.items) for request in requests]
        frame = pl.DataFrame(
            {
                "user": np.repeat(np.arange(len(requests)), sizes),
                "item": [self._world.items[item] for request in requests for item in request.items],
                "time": np.repeat([request.history.as_of for request in requests], sizes),
            }
        )
        usable = [
            request.features
            if request.features and request.features["quantizer_version"] == self._quantizer_version
            else None
            for request in requests
        ]
        numeric = _Numeric(self._plain.batches.numeric, self._world, live, [request.history for request in requests])
        plain = _bound(self._plain, live, numeric).predict(frame)["ctcvr"].to_list()
        featured = (
            _bound(self._featured, live, numeric).predict(self._with_features(frame, usable, sizes))["ctcvr"].to_list()
        )
        results, start = [], 0
        for size, features in zip(sizes, usable):
            results.append(
                RankResult(plain[start : start + size], featured[start : start + size] if features else None)
            )
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


class _Numeric:
    """Numeric features with the users' side from their newest state and the items' side from the run."""

    def __init__(self, base: NumericFeatures, world: World, live: Dataset, histories: Sequence[Any]) -> None:
        self._base, self._live = base, live
        strangers = world.dataset.n_users  # an id that never occurs in the run's log
        self._numbers = np.array(
            [strangers if (number := world.known(history)) is None else number for history in histories], np.int64
        )

    def matrix(self, users: np.ndarray, items: np.ndarray, as_ofs: np.ndarray) -> np.ndarray:
        """As :meth:`NumericFeatures.matrix`."""
        found = self._base.matrix(self._numbers[users], items, as_ofs)
        # Only the items in play are looked at, renumbered: counting is by user and category, whatever the numbers are.
        seen = self._live.events["item"].to_numpy().astype(np.int64)
        used, place = np.unique(np.concatenate([seen, items]), return_inverse=True)
        events = self._live.events.with_columns(item=pl.Series(place[: len(seen)], dtype=pl.UInt32))
        kept = self._live.items[used]
        small = NumericFeatures(SimpleNamespace(events=events, items=kept, prices=Prices.from_frames(events, kept)))
        found[:, USER_SIDE] = small.matrix(users, place[len(seen) :], as_ofs)[:, USER_SIDE]
        return found


def _bound(ranker: Ranker, live: Dataset, numeric: _Numeric) -> Ranker:
    """The ranker reading the users of a small data set; weights and item codes are shared, not copied."""
    batches = copy.copy(ranker.batches)
    batches.dataset, batches.numeric = live, numeric  # type: ignore[assignment]
    batches.user_rows, batches.profile_rows = ranker.encoder.user_codes(live.users)
    bound = copy.copy(ranker)
    bound.batches = batches
    return bound


def from_run(run: Path, settings: ServingSettings) -> RunScorer:
    """Load the rankers of a finished run."""
    del settings  # the run's own configuration says what its rankers are
    world = World(run)
    plain = Ranker.load(run / "evaluation_ranker" / "ranker", world.dataset)
    featured = Ranker.load(run / "ranking" / "taiji", world.dataset, plain.batches.numeric)
    return RunScorer(world, plain, featured, ProductQuantizer.load(run / "features" / "taiji-quantizer").version)
