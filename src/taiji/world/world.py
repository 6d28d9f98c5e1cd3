"""A simulated world of users, items and mechanisms, whose users respond to recommended lists.

All requests of a step are computed together, in arrays.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from taiji.core.component import NO_ITEM, Requests, Slate
from taiji.core.errors import ConfigError, InputError
from taiji.world.draws import Draws
from taiji.world.exposure import Exposure
from taiji.world.laws import logit, sigmoid
from taiji.world.mechanism import Ground, Mechanism
from taiji.world.mechanisms.content import Content
from taiji.world.observation import Choice, Observation, Public
from taiji.world.scenario import Scenario, find_mechanism, load_scenario
from taiji.world.world_time import demand_until, to_micros, when

if TYPE_CHECKING:
    from taiji.data.schema import Tables
    from taiji.world.observation import SlatePolicy
    from taiji.world.truth import Truth

Array = NDArray[Any]
FADING = 0.9
"""Factor by which each click of a user multiplies the weights of earlier clicks in the user's profile."""


class World:
    """Simulated world, determined by its scenario, its seed, and the lists shown so far.

    Args:
        scenario: name of a shipped scenario, path of a YAML file, or a :class:`Scenario`.
        seed: seed of all draws.
        changes: new values for keys of the scenario (``users=500``, ``days=7``).

    Attributes:
        scenario, seed: scenario with the changes applied, and seed.
        mechanisms: mechanisms by name, in the order in which they act.
        traits: user traits; see :class:`~taiji.world.mechanism.Ground`.
        slot: current slot of the clock.
    """

    def __init__(self, scenario: str | Path | Scenario = "short-video", seed: int = 0, **changes: Any) -> None:
        if not isinstance(scenario, Scenario):
            scenario = load_scenario(scenario, **changes)
        elif changes:
            given = {name: value for name, value in changes.items() if value is not None}
            scenario = Scenario.model_validate({**scenario.model_dump(), **given})
        self.scenario = scenario
        self._build(seed)
        self.reset()

    def _build(self, seed: int) -> None:
        """Create everything that depends only on scenario and seed."""
        self.seed, s = seed, self.scenario
        self._draws = Draws(seed, "world")
        user = np.arange(s.users)
        felt = np.where(self._draws.uniform("comes later", user) < s.joining, self._draws.uniform("joins", user), 0.0)
        self.traits = {
            "keenness": s.keenness * self._draws.normal("keenness", user),
            "activity": np.exp(s.activity * self._draws.normal("activity", user) - s.activity**2 / 2),
            "joined": when(felt * s.days, s.diurnal),
            "segment": self._draws.integers("segment", s.segments, user),
        }
        self.mechanisms: dict[str, Mechanism[Any]] = {}
        classes = {name: find_mechanism(name) for name in s.mechanisms}
        for name in _ordered(classes):
            ground = Ground(
                s.users, s.items, s.days, self.slot_days, s.slate, s.users * s.visits * s.requests, seed, s.domain,
                self.traits, s.segments, dict(self.mechanisms),
            )  # fmt: skip
            self.mechanisms[name] = classes[name](s.mechanisms[name], ground, Draws(seed, name))

    @property
    def slot_days(self) -> float:
        """Length of a slot in days."""
        return self.scenario.slot_hours / 24

    def reset(self, seed: int | None = None) -> Observation:
        """Reset the world to its initial state, and return the first requests; a different seed gives another world."""
        if seed is not None and seed != self.seed:
            self._build(seed)
        s, content = self.scenario, self.find(Content)
        user = np.arange(s.users)
        wait = self._draws.exponential("first visit", user) / (s.visits * self.traits["activity"])
        there = when(demand_until(self.traits["joined"], s.diurnal) + wait, s.diurnal)
        self.due = np.where(self.traits["joined"] > 0, self.traits["joined"], there)
        self.number = np.zeros(s.users, dtype=np.int64)
        self.round = np.zeros(s.users, dtype=np.int64)
        text = np.zeros((s.items, 1)) if content is None else content.text_topics
        self.public = Public(
            np.zeros(s.items), np.zeros(s.items), np.zeros((s.users, text.shape[1])), text,
            np.zeros(s.users), np.zeros(s.users),
        )  # fmt: skip
        for mechanism in self.mechanisms.values():
            mechanism.begin()
        self.slot = -1
        self._next_slot()
        return self._observe()

    def find(self, kind: type[Any]) -> Any:
        """Return the mechanism of a class; None if the world does not have it."""
        return next((part for part in self.mechanisms.values() if isinstance(part, kind)), None)

    @property
    def truth(self) -> Truth:
        """Truth that is hidden from every policy except the oracle: expectations, best lists, and policy values."""
        from taiji.world.truth import Truth

        return Truth(self)

    def twin(self, mechanism: str) -> World:
        """Return the same world with a mechanism, or a part of one (``funnel.position``), switched off.

        Raises:
            ConfigError: the world does not have this mechanism, or the mechanism has no such part.
        """
        name, part = (mechanism, "") if mechanism in self.mechanisms else mechanism.rpartition(".")[::2]
        if name not in self.mechanisms or part not in self.mechanisms[name].twins:
            known = [f"{n}.{p}".rstrip(".") for n, m in self.mechanisms.items() for p in m.twins]
            raise ConfigError(
                "This mechanism, or this part of it, cannot be switched off in the world.", where=f"twin of {self.scenario.name}", expected=", ".join(known) or "none",
                found=mechanism,
            )  # fmt: skip
        changed = self.scenario.mechanisms[name].model_copy(update=dict(self.mechanisms[name].twins[part]))
        mechanisms = {**self.scenario.mechanisms, name: type(changed).model_validate(changed.model_dump())}
        name = re.sub(r"\W", "-", f"{self.scenario.name}-without-{mechanism}")
        return World(self.scenario.model_copy(update={"mechanisms": mechanisms, "name": name}), self.seed)

    def log(self, policy: SlatePolicy | str | None = None, days: int | None = None) -> Tables:
        """Let a policy serve from the start, and return the log in the tables of a data source.

        If both arguments are None, a mechanism that has its own log (``shelf``) provides it instead.

        Args:
            policy: a policy or a name for :func:`taiji.world.policies.make_policy`; None uses the scenario's.
            days: length in days; None uses the scenario's.
        """
        from taiji.world.log import make_log

        return make_log(self, policy, days)

    @property
    def observation(self) -> Observation:
        """The current requests."""
        return self._observation

    def step(self, choice: Choice) -> Exposure:
        """Show lists to the requesting users, and return the exposure.

        Afterwards :attr:`observation` contains the requests of the next step.

        Raises:
            InputError: an item is unavailable or repeated in a list, the number of lists is wrong, or the choice
                contains a decision that no mechanism reads.
        """
        s, exposure = self.scenario, self._asking
        self._check(choice)
        shown = choice.items[:, : s.slate]
        exposure.items = np.pad(shown, ((0, 0), (0, s.slate - shown.shape[1])), constant_values=NO_ITEM)
        exposure.display = {name: _cut(values, s.slate) for name, values in choice.display.items()}
        exposure.display["propensity"] = _cut(choice.chances, s.slate)
        exposure.context.update({f"chosen_{name}": values for name, values in choice.row.items()})
        for mechanism in self.mechanisms.values():
            mechanism.serve(exposure, choice)
        self.respond(exposure)
        for mechanism in self.mechanisms.values():
            mechanism.settle(exposure)
        self._learn(exposure)
        self._leave(exposure)
        self._observe()
        return exposure

    def expect(self, exposure: Exposure) -> Exposure:
        """Compute the terms and expectations of lists. The world does not change."""
        for made in (exposure.terms, exposure.expected, exposure.behaviour_vectors):
            made.clear()
        for mechanism in self.mechanisms.values():
            mechanism.place(exposure)
        for mechanism in self.mechanisms.values():
            mechanism.shape(exposure)
        exposure.expect_click(self.scenario.click_bias, self.traits["keenness"])
        for mechanism in self.mechanisms.values():
            mechanism.expect(exposure)
        for name, values in exposure.expected.items():
            exposure.expected[name] = np.where(exposure.shown, values, 0.0)
        return exposure

    def respond(self, exposure: Exposure) -> Exposure:
        """Compute expectations and draw outcomes. The world does not change."""
        self.expect(exposure)
        view = exposure.expected["view"]
        seen = exposure.shown & (self._draws.uniform("view", *exposure.keys) < view)
        chance = exposure.expected["click"] / np.where(view > 0, view, 1.0)
        exposure.outcome["view"] = seen.astype(np.float64)
        clicked = seen & (self._draws.uniform("click", *exposure.keys) < chance)
        exposure.outcome["click"] = clicked.astype(np.float64)
        for mechanism in self.mechanisms.values():
            mechanism.draw(exposure)
        return exposure

    def reward(self, values: dict[str, Array]) -> Array:
        """Return the rewards (B,) of lists: expectations or outcomes, summed with the scenario's weights."""
        unknown = [name for name in self.scenario.reward if name not in values]
        if unknown:
            raise ConfigError(
                "The reward uses a quantity that this world does not have.", where=f"{self.scenario.name}, reward",
                expected=", ".join(sorted(values)), found=", ".join(unknown),
            )  # fmt: skip
        return np.asarray(sum(w * np.nansum(values[name], axis=1) for name, w in self.scenario.reward.items()))

    def available(self, slot: int) -> Array:
        """Return (items,) bool, the items that can be shown in a slot according to the current state."""
        found = np.ones(self.scenario.items, dtype=bool)
        for mechanism in self.mechanisms.values():
            if (mask := mechanism.available(slot)) is not None:
                found &= mask
        return found

    def _next_slot(self) -> None:
        self.slot += 1
        for mechanism in self.mechanisms.values():
            mechanism.advance(self.slot)
        self._available = self.available(self.slot)
        self._end = (self.slot + 1) * self.slot_days

    def _observe(self) -> Observation:
        users = np.flatnonzero(self.due < self._end)
        while not len(users):
            self._next_slot()
            users = np.flatnonzero(self.due < self._end)
        empty = np.empty((len(users), 0), dtype=np.int64)
        exposure = Exposure(users, self.number[users], np.maximum(self.due[users], 0.0), self.slot, empty)
        for mechanism in self.mechanisms.values():
            mechanism.observe(exposure)
        candidates, pool = self._candidates(exposure)
        exposure.candidates, exposure.available, exposure.pool = candidates, self._available, pool
        context = {k: v for k, v in exposure.context.items() if not k.startswith("_")}
        requests = Requests(users, to_micros(exposure.time), context)
        self._asking = exposure
        self._observation = Observation(
            requests, exposure.number, self.round[users], Slate(candidates), self._available, pool, self.public
        )
        return self._observation

    def _candidates(self, exposure: Exposure) -> tuple[Array, Array]:
        """Return candidates (B, C), a uniform sample from each request's pool of items, and the pool sizes (B,)."""
        b = len(exposure.user)
        parts = [(part.pool(exposure), part.item_pool) for part in self.mechanisms.values()]
        rows, of = next(((r, i) for r, i in parts if r is not None and i is not None), (np.zeros(b, dtype=int), None))
        found = np.full((b, self.scenario.candidates), NO_ITEM, dtype=np.int64)
        size = np.zeros(b, dtype=np.int64)
        for pool in np.unique(rows):
            items = np.flatnonzero(self._available if of is None else self._available & (of == pool))
            mine = np.flatnonzero(rows == pool)
            size[mine] = len(items)
            if not len(items):
                continue
            count = min(len(items), self.scenario.candidates)
            order = items[np.argsort(self._draws.bits("order", self.slot, items), kind="stable")]
            edges = np.arange(count + 1) * len(items) // count
            keys = (exposure.user[mine, None], exposure.number[mine, None], np.arange(count)[None, :])
            inside = (self._draws.uniform("candidate", *keys) * np.diff(edges)).astype(np.int64)
            found[mine, :count] = order[edges[:-1] + inside]
        return found, size

    def _check(self, choice: Choice) -> None:
        s, items, b = self.scenario, choice.items, len(self._asking.user)
        there = items != NO_ITEM
        if items.ndim != 2 or len(items) != b:
            raise InputError(
                "A choice does not match the requests.", expected=f"{b} lists", found=f"items of shape {items.shape}"
            )
        wrong = there & ((items < 0) | (items >= s.items))
        wrong |= there & ~self._available[np.where(wrong, 0, np.maximum(items, 0))]
        if wrong.any():
            row, place = np.argwhere(wrong)[0]
            raise InputError(
                "A choice shows an item that is not available.", where=f"list {row}, place {place}",
                expected="items that are True in observation.available", found=f"item {items[row, place]}",
            )  # fmt: skip
        known = {name for mechanism in self.mechanisms.values() for name in mechanism.decisions}
        if unknown := sorted({*choice.display, *choice.row} - known):
            raise InputError(
                "A choice contains a decision that no mechanism of this world reads.", where=f"world {s.name}",
                expected=", ".join(sorted(known)) or "only items and propensities", found=", ".join(unknown),
            )  # fmt: skip
        order = np.sort(items, axis=1)
        twice = ((order[:, 1:] == order[:, :-1]) & (order[:, 1:] != NO_ITEM)).any(axis=1)
        if twice.any():
            raise InputError(
                "A list shows an item twice.",
                expected="different items per list",
                where=f"list {int(np.flatnonzero(twice)[0])}",
            )

    def _learn(self, exposure: Exposure) -> None:
        """Update the public knowledge with exposures and clicks."""
        shown, clicked, public = exposure.shown, exposure.outcome["click"] == 1, self.public
        n = self.scenario.items
        public.exposures += np.bincount(exposure.items[shown], minlength=n)
        public.clicks += np.bincount(exposure.items[clicked], minlength=n)
        public.seen[exposure.user] += 1
        count = clicked.sum(axis=1)
        public.clicked[exposure.user] += count
        told = (public.text_topics[exposure.safe_items] * clicked[..., None]).sum(axis=1)
        public.profile[exposure.user] = public.profile[exposure.user] * FADING ** count[:, None] + told

    def _leave(self, exposure: Exposure) -> None:
        """Set the time of each user's next request, in the same session or after a time away."""
        s, user = self.scenario, exposure.user
        keys = exposure.row_keys
        zero = np.zeros(len(user))
        leave = sigmoid(logit(1 / s.requests) + exposure.row_terms.get("leave", zero)) if s.requests > 1 else 1.0 + zero
        self.round[user] += 1
        left = (self._draws.uniform("leave", *keys) < leave) | (self.round[user] >= s.longest)
        watched = np.nansum(exposure.outcome.get("watch", np.zeros((len(user), 1))), axis=1)
        inside = exposure.time + (s.pause * self._draws.exponential("pause", *keys) + watched) / 86_400
        wait = self._draws.exponential("away", *keys) * np.exp(exposure.row_terms.get("delay", zero))
        wait /= s.visits * self.traits["activity"][user]
        away = when(demand_until(inside, s.diurnal) + wait, s.diurnal)
        self.due[user] = np.where(left, away, inside)
        self.round[user] = np.where(left, 0, self.round[user])
        self.number[user] += 1
        exposure.context["left"] = left


def _cut(values: Array, length: int) -> Array:
    values = np.asarray(values)[:, :length]
    if values.shape[1] == length:
        return values
    fill: Any = np.nan if values.dtype.kind == "f" else 0
    return np.pad(values, ((0, 0), (0, length - values.shape[1])), constant_values=fill)


def _ordered(classes: dict[str, type[Mechanism[Any]]]) -> list[str]:
    """Return the names of mechanisms in the order in which they act: each after those in its ``after``.

    Otherwise they are sorted by name; the order in the scenario's file does not matter.
    """
    waiting, done = sorted(classes), []
    while waiting:
        ready = next((n for n in waiting if not any(a in waiting for a in classes[n].after if a != n)), None)
        if ready is None:
            raise ConfigError("The order of the mechanisms is circular.", found=", ".join(waiting))
        waiting.remove(ready)
        done.append(ready)
    return done
