"""Online point-in-time statistics.

Statistics of a user's own clicks include the latest events; all others are computed from the run's log alone.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from taiji.data.dataset import Dataset
from taiji.data.statistics import OWN, PointInTime
from taiji.serving.live_dataset import World
from taiji.serving.types import UserHistory

Array = NDArray[Any]


class LiveStatistics:
    """See :class:`taiji.data.statistics.PastStatistics`.

    Args:
        world: the run's dataset.
        live: dataset of the requested users, numbered from 0.
        histories: history of each of these users.
    """

    def __init__(self, world: World, live: Dataset, histories: Sequence[UserHistory]) -> None:
        strangers = world.dataset.n_users  # an id that never occurs in the run's log
        self._numbers = np.array(
            [strangers if (number := world.known(history)) is None else number for history in histories], np.int64
        )
        self._run = world.statistics
        own = live.history
        owners = np.repeat(np.arange(own.n_users), np.diff(own.offsets))
        self._own = self._run.with_clicks(owners, own.items, own.times)
        self._last: LivePointInTime | None = None

    def at(self, users: Array, items: Array, times: Array) -> LivePointInTime:
        """Return the statistics of rows; a repeated call for the same rows returns the same object."""
        last = self._last
        if last is None or not all(map(np.array_equal, last.asked, (users, items, times))):
            run, own = self._run.at(self._numbers[users], items, times), self._own.at(users, items, times)
            last = self._last = LivePointInTime(run, own)
        return last


class LivePointInTime(PointInTime):
    """Statistics of given rows, each computed once.

    Args:
        run: statistics of the run's log.
        own: statistics that include the users' latest events, used for everything that depends on a user's own clicks.
    """

    def __init__(self, run: PointInTime, own: PointInTime) -> None:
        self.__dict__.update(run.__dict__)
        self._own = own
        self._found: dict[str, Array] = {}
        self.shared = {}
        self._spread: dict[tuple[int | None, int | None], tuple[Array, LivePointInTime]] = {}

    @cached_property
    def user_clicks(self) -> tuple[Array, Array]:
        """Number of the user's clicks and time of the last one, including the latest events."""
        return self._own.user_clicks

    @property
    def asked(self) -> tuple[Array, Array, Array]:
        """Users, items and times of the rows, as in the request."""
        return self._own.user, self._own.item, self._own.time

    def __getitem__(self, name: str) -> Array:
        """Return one statistic, (N,) float32."""
        if name not in self._found:
            self._found[name] = self._own[name] if name in OWN else super().__getitem__(name)
        return self._found[name]

    def spread(self, items: Array, rows: slice = slice(None)) -> LivePointInTime:
        """Return the statistics of each row (request) paired with each of its items (R, M).

        A repeated call for the same rows and items returns the same object.
        """
        key = (rows.start, rows.stop)
        last = self._spread.get(key)
        if last is None or not np.array_equal(last[0], items):
            last = self._spread[key] = (
                items,
                LivePointInTime(super().spread(items, rows), self._own.spread(items, rows)),
            )
        return last[1]
