"""Truth of a world: expectations, best lists, regret, and policy values."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from itertools import combinations, permutations
from math import perm
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from taiji.core.component import NO_ITEM
from taiji.core.errors import ConfigError, InputError
from taiji.world.exposure import Exposure
from taiji.world.mechanisms.load import Load
from taiji.world.observation import Observation, SlatePolicy
from taiji.world.world_time import to_days

if TYPE_CHECKING:
    from taiji.world.world import World

Array = NDArray[Any]
NOTHING: Mapping[str, Array] = {}
EXACT = 6000
"""Largest number of lists per request for which the best one is found exhaustively."""


@dataclass(frozen=True)
class Value:
    """Mean over worlds, with its standard error."""

    mean: float
    error: float
    runs: int


class Truth:
    """Ground truth of one world.

    Tastes and topics are those at the given time; availability, networks and load are the current ones.
    """

    def __init__(self, world: World) -> None:
        self.world = world

    def affinity(self, users: Array, items: Array, time: Array | int | None = None, behaviour: str = "view") -> Array:
        """Return (N,) cosines of the users' tastes and the items' topics.

        Args:
            users, items: (N,) ids.
            time: microseconds since the epoch, (N,) or a scalar; None for the start of the current slot.
            behaviour: ``view``, ``cart`` or ``buy``.
        """
        found = np.zeros(len(users))
        for rows, exposure in self._exposures(np.asarray(users), np.asarray(items)[:, None], time):
            self.world.expect(exposure)
            found[rows] = exposure.affinity(behaviour)[:, 0]
        return found

    def expect(
        self,
        users: Array,
        slates: Array,
        time: Array | int | None = None,
        display: Mapping[str, Array] = NOTHING,
        context: Mapping[str, Array] = NOTHING,
    ) -> dict[str, Array]:
        """Return every expectation, (B, L) each: ``view``, ``click``, and those of the world's mechanisms.

        Args:
            users: (B,) ids.
            slates: (B, L) lists, padded with −1, or (B,) single items.
            time: as for :meth:`affinity`.
            display: additional choices of a policy (``style``), each (B, L).
            context: (B,) values of the requests' context (``scenario``, ``network``); the mechanisms fill in missing
                values.
        """
        slates = np.asarray(slates)
        slates = slates[:, None] if slates.ndim == 1 else slates
        found: dict[str, Array] = {}
        for rows, exposure in self._exposures(np.asarray(users), slates, time, display, context):
            for name, values in self.world.expect(exposure).expected.items():
                found.setdefault(name, np.zeros(slates.shape))[rows] = values
        return found

    def simulate(self, users: Array, slates: Array, time: Array | int | None = None, *, first: int = 0) -> Exposure:
        """Return simulated responses to hypothetical lists.

        The draws of list i are keyed by its user and by the number ``first`` + i; equal keys give equal draws. All
        times must lie in the same slot of the clock.

        Raises:
            InputError: the times lie in several slots, or an id does not exist in the world.
        """
        found = [exposure for _, exposure in self._exposures(np.asarray(users), np.asarray(slates), time)]
        if len(found) != 1:
            raise InputError(
                "The times do not lie in a single slot of the clock.", where="time",
                expected=f"times in one slot of the clock ({self.world.scenario.slot_hours:g} hours)", found=f"{len(found)} slots",
            )  # fmt: skip
        exposure = found[0]
        exposure.renumber(first + np.arange(len(exposure.user)))
        return self.world.respond(exposure)

    def value(
        self, users: Array, slates: Array, time: Array | int | None = None, context: Mapping[str, Array] = NOTHING
    ) -> Array:
        """Return (B,) expected rewards of lists (B, L), by the scenario's weights; see :meth:`expect`."""
        return self.world.reward(self.expect(users, slates, time, context=context))

    def rewards(self, observation: Observation, items: Array) -> Array:
        """Return the expected rewards (B, C) of items, each shown alone in the first position of its request."""
        flat = {name: values.reshape(-1, 1) for name, values in self.alone(observation, items).items()}
        return self.world.reward(flat).reshape(items.shape)

    def alone(self, observation: Observation, items: Array) -> dict[str, Array]:
        """Return all expectations (B, C) of items, each shown alone in the first position of its request."""
        b, c = items.shape
        exposure = self._of(observation, np.repeat(np.arange(b), c), items.reshape(-1, 1))
        return {name: values.reshape(b, c) for name, values in self.world.expect(exposure).expected.items()}

    def list_values(self, observation: Observation, lists: Array) -> Array:
        """Return expected rewards (B, K) of lists (B, K, L) in the context of the requests."""
        b, k, length = lists.shape
        exposure = self._of(observation, np.repeat(np.arange(b), k), lists.reshape(b * k, length))
        return self.world.reward(self.world.expect(exposure).expected).reshape(b, k)

    def best_slate(self, observation: Observation, length: int | None = None, budget: int | None = None) -> Array:
        """Return the lists (B, L) with the highest expected reward.

        Args:
            observation: requests with candidates.
            length: length of the lists; None uses the scenario's.
            budget: number of candidates considered, those with the highest reward when shown alone; None considers all.

        If a request has fewer candidates than positions, its list ends with :data:`NO_ITEM`; otherwise every position
        is filled. If there are at most :data:`EXACT` possible lists, the search is exhaustive. Otherwise a list is
        built greedily and then improved by replacing one item or swapping two positions, at most 2 · length times. Its
        reward is a lower bound on the best reward.
        """
        items = observation.candidates.items
        alone = np.where(items == NO_ITEM, -np.inf, self.rewards(observation, items))
        order = np.argsort(-alone, axis=1, kind="stable")[:, : budget or items.shape[1]]
        items = np.take_along_axis(items, order, axis=1)
        length = min(length or self.world.scenario.slate, items.shape[1])
        if perm(items.shape[1], length) <= EXACT:
            lists = np.array([p for c in combinations(range(items.shape[1]), length) for p in permutations(c)])
            return self._best(observation, items, items[:, lists])[0]
        return self._improved(observation, items, self._grown(observation, items, length))

    def regret(self, observation: Observation, slates: Array, budget: int | None = None) -> Array:
        """Return the expected reward of the best lists minus that of the given lists, (B,).

        The regret is at least 0 if the search of :meth:`best_slate` is exhaustive and the lists consist of candidates.
        """
        best = self.list_values(observation, self.best_slate(observation, np.shape(slates)[1], budget)[:, None])
        return np.asarray((best - self.list_values(observation, np.asarray(slates)[:, None]))[:, 0])

    def cache_regret(self, observation: Observation, slates: Array) -> Array:
        """Return the expected loss of reward (B,) if requests get their cached lists instead of ``slates`` (B, L).

        Items of a cached list that are no longer available are not shown. The loss is NaN for a user whose cached list
        has no item left.

        Raises:
            ConfigError: the world has no cache.
        """
        load = self.world.find(Load)
        if load is None:
            raise ConfigError(
                "This world has no cache.", where=f"world {self.world.scenario.name}", expected="the mechanism load"
            )
        cached, _ = load.left(observation.requests.user, observation.available)
        values = self.list_values(observation, np.stack([np.asarray(slates), cached], axis=1))
        return np.where((cached != NO_ITEM).any(axis=1), values[:, 0] - values[:, 1], np.nan)

    def policy_value(
        self, policy: str | Callable[[World], SlatePolicy], days: float, runs: int = 5
    ) -> dict[str, Value]:
        """Return the value of a policy per user over ``days``, by Monte Carlo over ``runs`` worlds with other seeds.

        Args:
            policy: name of a policy, see :func:`taiji.world.policies.make_policy`, or a function that makes the policy
                for a world. A policy made for one world cannot act in the others.
            days: length of each run; later requests are ignored.
            runs: number of worlds.

        The values are ``reward`` (of outcomes), ``requests``, ``sessions``, ``active_days``, and every outcome by name.
        Each is the mean over worlds of the mean per user.

        Raises:
            InputError: the policy is neither a name nor a function.
        """
        from taiji.world.outcomes import user_outcomes
        from taiji.world.world import World

        if not isinstance(policy, str) and not callable(policy):
            raise InputError(
                "A policy of one world cannot act in worlds with other seeds.",
                where="policy_value",
                expected="the name of a policy, or a function from a world to a policy",
                found=type(policy).__name__,
                fix="pass lambda world: YourPolicy(world)",
            )
        found: dict[str, list[float]] = {}
        for run in range(runs):
            world = World(self.world.scenario, self.world.seed + 1_000_003 * (run + 1))
            own = policy if isinstance(policy, str) else policy(world)
            for name, values in user_outcomes(world, own, days).items():
                found.setdefault(name, []).append(float(values.mean()))
        return {
            name: Value(float(np.mean(v)), float(np.std(v, ddof=1) / np.sqrt(runs)) if runs > 1 else float("nan"), runs)
            for name, v in found.items()
        }

    def _exposures(
        self,
        users: Array,
        slates: Array,
        time: Array | int | None,
        display: Mapping[str, Array] = NOTHING,
        context: Mapping[str, Array] = NOTHING,
    ) -> Iterator[tuple[Array, Exposure]]:
        """Yield, per slot, the indices of the lists whose time lies in the slot, and an exposure of these lists."""
        world, s = self.world, self.world.scenario
        for what, ids, low, count in (("users", users, 0, s.users), ("items", slates, NO_ITEM, s.items)):
            if ids.size and not (ids.dtype.kind in "iu" and low <= ids.min() and ids.max() < count):
                raise InputError(
                    "An id does not exist in this world.", where=what,
                    expected=f"integers from {low} to {count - 1}", found=f"{ids.dtype}, {ids.min()} to {ids.max()}",
                )  # fmt: skip
        days = np.full(len(users), world.slot * world.slot_days) if time is None else to_days(np.asarray(time))
        days = np.broadcast_to(days, users.shape)
        slots = np.floor(days / world.slot_days + 1e-9).astype(np.int64)
        for slot in np.unique(slots):
            rows = np.flatnonzero(slots == slot)
            exposure = Exposure(users[rows], np.zeros(len(rows), np.int64), days[rows], int(slot), slates[rows])
            exposure.display = {name: np.asarray(values)[rows] for name, values in display.items()}
            exposure.context = {name: np.asarray(values)[rows] for name, values in context.items()}
            for mechanism in world.mechanisms.values():
                mechanism.assume(exposure)
            yield rows, exposure

    def _of(self, observation: Observation, rows: Array, lists: Array) -> Exposure:
        requests = observation.requests
        context = {name: values[rows] for name, values in requests.columns.items()}
        days = to_days(requests.time)[rows]
        exposure = Exposure(
            requests.user[rows], observation.number[rows], days, self.world.slot, lists, context=context
        )
        for mechanism in self.world.mechanisms.values():
            mechanism.assume(exposure)
        return exposure

    def _best(self, observation: Observation, items: Array, lists: Array) -> tuple[Array, Array]:
        """Return the best of each request's lists (B, K, L) of candidates (B, C), as (B, L), and its value (B,).

        Only lists that fill as many positions as the candidates allow, without gaps, are considered.
        """
        values = self.list_values(observation, lists)
        there, most = lists != NO_ITEM, (items != NO_ITEM).sum(axis=1)
        whole = there.sum(axis=2) == np.minimum(most, lists.shape[2])[:, None]
        values = np.where(whole & (there[..., :-1] >= there[..., 1:]).all(axis=2), values, -np.inf)
        best = values.argmax(axis=1)
        rows = np.arange(len(lists))
        return lists[rows, best], values[rows, best]

    def _grown(self, observation: Observation, items: Array, length: int) -> Array:
        b, c = items.shape
        lists = np.full((b, length), NO_ITEM, dtype=np.int64)
        for place in range(length):
            tried = np.repeat(lists[:, None], c, axis=1)
            tried[:, :, place] = items
            values = self.list_values(observation, tried)
            values[(lists[:, None, :] == items[:, :, None]).any(axis=2) | (items == NO_ITEM)] = -np.inf
            chosen = items[np.arange(b), values.argmax(axis=1)]
            lists[:, place] = np.where(np.isfinite(values).any(axis=1), chosen, NO_ITEM)
        return lists

    def _improved(self, observation: Observation, items: Array, lists: Array) -> Array:
        length = lists.shape[1]
        value = self.list_values(observation, lists[:, None])[:, 0]
        swaps = [(i, j) for i in range(length) for j in range(i)]
        for _ in range(2 * length):
            tried = np.repeat(lists[:, None], len(swaps) + length * items.shape[1], axis=1)
            for number, (i, j) in enumerate(swaps):
                tried[:, number, [i, j]] = tried[:, number, [j, i]]
            for place in range(length):
                start = len(swaps) + place * items.shape[1]
                there = (lists[:, None, :] == items[:, :, None]).any(axis=2)
                tried[:, start : start + items.shape[1], place] = np.where(there, lists[:, [place]], items)
            better, found = self._best(observation, items, tried)
            gain = found > value + 1e-12
            if not gain.any():
                break
            lists, value = np.where(gain[:, None], better, lists), np.where(gain, found, value)
        return lists
