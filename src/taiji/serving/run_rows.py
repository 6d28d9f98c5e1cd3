"""Feature rows stored with a run's ranker, for users for whom the service has no suitable row."""

from __future__ import annotations

from typing import Any

import numpy as np

from taiji.features.other_run import StoredFeatures
from taiji.serving.live_dataset import World
from taiji.serving.types import UserHistory


class RunRows:
    """Newest feature row of each user.

    Args:
        world: the run's dataset.
        features: features with which the run's ranker was trained.
    """

    def __init__(self, world: World, features: StoredFeatures) -> None:
        order = features.table.sort("user", "available_at", "as_of", maintain_order=True)
        self._world, self._rows = world, order.unique("user", keep="last", maintain_order=True)
        self._users = self._rows["user"].to_numpy()
        self.quantizer_version = str(features.about["quantizer_version"])

    def of(self, history: UserHistory) -> dict[str, Any] | None:
        """Return a user's row in the same form as the rows in the service's store.

        The result is None if the user has no row or was erased, or if the row was not available before ``as_of``.
        """
        user = self._world.known(history)
        place = len(self._users) if user is None else int(np.searchsorted(self._users, user))
        if place == len(self._users) or self._users[place] != user:
            return None
        row = self._rows.row(place, named=True)
        if row["available_at"] >= history.as_of:
            return None
        items = [self._world.item_names[item] for item in row["neighbour_items"] or ()]
        return {"quantizer_version": self.quantizer_version, **row, "ids": row["ids"] or [], "neighbour_items": items}
