"""A fitted scorer as a policy of a world."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from taiji.core.component import NO_ITEM, Requests, Scorer, Slate
from taiji.core.errors import InputError
from taiji.data.dataset import Dataset
from taiji.world.observation import Observation
from taiji.world.policies import RankingPolicy
from taiji.world.world import World

Array = NDArray[Any]
CLICK: Mapping[str, float] = {"click": 1.0}


class ScorerPolicy(RankingPolicy):
    """Policy that ranks candidates by a scorer's predictions.

    The scorer uses the histories and counts of its dataset, which are not updated while the policy serves. Items
    missing from the dataset come last.

    Args:
        world: world to act in.
        scorer: scorer fitted to a log of this world, or of another world with the same users and items.
        dataset: dataset made from this log.
        weights: weights of the predictions in the score, by name.
        temperature: see :class:`RankingPolicy`.

    Raises:
        InputError: the log has users or items that do not exist in the world.
    """

    def __init__(
        self,
        world: World,
        scorer: Scorer[Any],
        dataset: Dataset,
        weights: Mapping[str, float] = CLICK,
        temperature: float = 0.0,
    ) -> None:
        super().__init__(world, temperature)
        self.scorer, self.weights = scorer, weights
        self._user = dense_ids(dataset.users["user_id"].to_numpy(), world.scenario.users, "users")
        self._item = dense_ids(dataset.items["item_id"].to_numpy(), world.scenario.items, "items")

    def scores(self, observation: Observation) -> Array:
        """Return weighted sums of predictions; items missing from the log get the lowest scores."""
        user = self._user[observation.requests.user]
        candidates = observation.candidates.items
        items = np.where(candidates == NO_ITEM, NO_ITEM, self._item[candidates])
        found = np.full(items.shape, -np.inf)
        rows = np.flatnonzero(user >= 0)
        if len(rows):
            columns = {name: values[rows] for name, values in observation.requests.columns.items()}
            order = np.argsort(
                items[rows] == NO_ITEM, axis=1, kind="stable"
            )  # the padding of a slate comes after its items
            slate = Slate(np.take_along_axis(items[rows], order, axis=1))
            state = self.scorer.encode(Requests(user[rows], observation.requests.time[rows], columns))
            predicted = self.scorer.score(state, slate)
            values = np.asarray(sum(weight * predicted[name] for name, weight in self.weights.items()))
            np.put_along_axis(part := np.empty(values.shape), order, values, axis=1)
            found[rows] = part
        known = (items != NO_ITEM) & (user >= 0)[:, None]
        lowest = found[known].min(initial=0.0)
        return np.where(known, found, lowest - 1.0)


def dense_ids(ids: Array, count: int, what: str) -> Array:
    """Return the index in ``ids`` of each id from 0 to ``count`` − 1, (count,); −1 for an id that is missing.

    Args:
        ids: ids of users or items in a log.
        count: number of users or items of the world.
        what: kind of the ids, for the error message.

    Raises:
        InputError: an id does not exist in the world.
    """
    if ids.dtype.kind not in "iu" or (ids < 0).any() or (ids >= count).any():
        raise InputError(
            "The log does not belong to this world.", where=what, expected=f"ids from 0 to {count - 1}", found=f"{ids[:5].tolist()}, …"
        )  # fmt: skip
    found = np.full(count, NO_ITEM, dtype=np.int64)
    found[ids] = np.arange(len(ids))
    return found
