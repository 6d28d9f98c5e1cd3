"""Truth about lists and candidates of a log that a world made: what users would do with them, in expectation."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from taiji.core.component import NO_ITEM, Requests
from taiji.data.dataset import Dataset
from taiji.world.scorer_policy import dense_ids
from taiji.world.world import World

Array = NDArray[Any]
ALONE = ("view", "click", "buy", "watch", "pleased")
"""Expectations of a single item that are told, where the world has them."""


class WorldTruth:
    """Truth in the dense ids of a log.

    Args:
        world: that made the log, at its opening: tastes and topics are those of the time asked about, and what depends on what was
            shown is that of the opening.
        dataset: the log.

    Raises:
        InputError: the log has users or items that the world does not have.
    """

    def __init__(self, world: World, dataset: Dataset) -> None:
        self.world = world
        for column, frame, count in (
            ("user_id", dataset.users, world.scenario.users),
            ("item_id", dataset.items, world.scenario.items),
        ):
            dense_ids(frame[column].to_numpy(), count, column)
        self._user, self._item = dataset.users["user_id"].to_numpy(), dataset.items["item_id"].to_numpy()

    def of_lists(self, requests: Requests) -> Callable[[Array], Mapping[str, Array]]:
        """Return a function from lists (B, K) to the expected reward (B,) of each, by the scenario's weights."""

        def values(lists: Array) -> Mapping[str, Array]:
            slates = np.where(lists == NO_ITEM, NO_ITEM, self._item[lists])
            worth = self.world.truth.value(self._user[requests.user], slates, requests.time)
            return {f"true_reward@{lists.shape[1]}": worth}

        return values

    def of_candidates(self, users: Array, items: Array, times: Array) -> dict[str, Array]:
        """Return expectations (N,) of single items in the first place, as ``true click``."""
        found = self.world.truth.expect(self._user[users], self._item[items], times)
        return {f"true {name}": found[name][:, 0] for name in ALONE if name in found}
