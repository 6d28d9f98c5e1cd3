"""Outcomes of users in a world: totals per user, overall or by day."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from taiji.world.exposure import Exposure
from taiji.world.log import run
from taiji.world.observation import SlatePolicy
from taiji.world.policies import make_policy

if TYPE_CHECKING:
    from taiji.world.world import World

Array = NDArray[Any]


class Totals:
    """Sums of the steps' outcomes per user and day.

    Attributes:
        sums: sums by name, each (users · days,); :meth:`by_day` returns one in the shape (users, days).

    Args:
        world: the world.
        days: end of the period in days, not necessarily a whole number. Later requests are ignored.
    """

    def __init__(self, world: World, days: float) -> None:
        self.world, self.end, self.days = world, days, int(np.ceil(days))
        self.sums: dict[str, Array] = {}

    def add(self, exposure: Exposure) -> None:
        """Add one step."""
        inside = exposure.time < self.end
        user, day = exposure.user[inside], exposure.time[inside].astype(np.int64)
        one = np.ones(len(user))
        left = exposure.context["left"][inside].astype(np.float64)
        named = {"requests": one, "sessions": left, "reward": self.world.reward(exposure.outcome)[inside]}
        named |= {name: np.nansum(values, axis=1)[inside] for name, values in exposure.outcome.items()}
        users = self.world.scenario.users
        for name, values in named.items():
            flat = np.bincount(user * self.days + day, weights=values, minlength=users * self.days)
            have = self.sums.get(name)
            self.sums[name] = flat if have is None else have + flat

    def by_day(self, name: str) -> Array:
        """Return (users, days) sums; ``active_days`` is 1 on a day with a request."""
        if name == "active_days":
            return (self.by_day("requests") > 0).astype(np.float64)
        found = self.sums.get(name, np.zeros(self.world.scenario.users * self.days))
        return found.reshape(self.world.scenario.users, self.days)


def user_outcomes(world: World, policy: SlatePolicy | str, days: float) -> dict[str, Array]:
    """Return totals (users,) under a policy that serves all users, by name.

    The names are ``reward``, ``requests``, ``sessions``, ``active_days``, and those of the outcomes (``click``, …).
    """
    totals = Totals(world, days)
    for exposure in run(world, make_policy(policy, world), days):
        totals.add(exposure)
    return {name: totals.by_day(name).sum(axis=1) for name in (*totals.sums, "active_days")}
