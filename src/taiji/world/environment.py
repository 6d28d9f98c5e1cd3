"""A world as a Gymnasium environment, with one row per user, and one decision per requesting user and step.

The extra ``world`` installs Gymnasium. Without Gymnasium, creating a :class:`WorldEnv` raises an error that names the
extra.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from taiji.core.component import NO_ITEM
from taiji.core.errors import ConfigError, InputError
from taiji.core.optional import needs
from taiji.world.draws import Draws
from taiji.world.mechanisms.copy import STYLES
from taiji.world.observation import Choice, Observation
from taiji.world.policies import ContentPolicy
from taiji.world.scenario import Scenario
from taiji.world.world import World
from taiji.world.world_time import to_days

try:
    import gymnasium

    Base: Any = gymnasium.Env
except ImportError:
    Base = object

Array = NDArray[Any]
USERS = 20
"""Number of users if the environment is created from a scenario instead of a world."""
FUSED = ("click", "cart", "buy", "watch", "pleased", "comment_seconds")
"""Predictions that an agent may fuse, if the world has them."""
BOUND = 10.0
"""Bound on the absolute values in observations."""
PREDICTION_NOISE = 0.5
"""Standard deviation of the error of the predictions that an agent fuses, on the log scale."""


class WorldEnv(Base):
    """Environment of one world.

    An action has one row per user. Rows of users without a request are ignored; the first column of the observation is
    0 for these users. The meaning of an action depends on the scenario's task:

    | task | action | effect |
    |---|---|---|
    | ``slate`` | (users, candidates) in [−1, 1] | scores of the candidates; the best are shown |
    | ``fusion`` | (users, predictions) in [0, 1] | weights of noisy predictions; items with the best sums are shown |
    | ``cache`` | (users,) 0 or 1 | 1 computes a list within the capacity, 0 uses the cached one |
    | ``copy`` | (users,) index of a style | the notification has this style |

    The reward of a step is the sum of the rewards of all served lists, divided by the number of users of the world. The
    return of an episode therefore increases if users come back more often. An episode is truncated after the scenario's
    number of days.

    Args:
        world: a world, or the name or path of a scenario, from which a world with :data:`USERS` users is created.
        seed: seed of the world; by default that of a given world, or 0. ``reset(seed=…)`` sets a new one, and
            ``reset()`` draws one from the environment's generator.
        changes: new values for keys of the scenario.

    Raises:
        ConfigError: changes are given with a world, whose scenario is fixed.
    """

    metadata: ClassVar[dict[str, Any]] = {"render_modes": []}

    def __init__(
        self, world: World | Scenario | str | Path = "short-video", seed: int | None = None, **changes: Any
    ) -> None:
        with needs("world"):
            from gymnasium import spaces
        if not isinstance(world, World):
            world = World(world, seed or 0, **({"users": USERS, "candidates": 20} | changes))
        elif changes:
            raise ConfigError(
                "The scenario of a world cannot be changed.",
                where="WorldEnv",
                expected="a scenario, or a world alone",
                found=f"a world with {', '.join(changes)}",
                fix="set these keys when the world is made",
            )
        self.world, s = world, world.scenario
        self.choices = {k: v for part in world.mechanisms.values() for k, v in part.choices.items()}
        self.fused = self._fused()
        self._history = np.zeros((s.users, len(STYLES)))
        self._predicted: tuple[Observation, Array] | None = None
        self._current = world.reset(seed)
        self._begin()
        shape = (s.users, self._features().shape[1])
        self.observation_space = spaces.Box(-BOUND, BOUND, shape, np.float32)
        self.action_space = {
            "slate": lambda: spaces.Box(-1.0, 1.0, (s.users, s.candidates), np.float32),
            "fusion": lambda: spaces.Box(0.0, 1.0, (s.users, len(self.fused)), np.float32),
            "cache": lambda: spaces.MultiDiscrete(np.full(s.users, 2)),
            "copy": lambda: spaces.MultiDiscrete(np.full(s.users, len(STYLES))),
        }[s.task]()

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Array, dict[str, Any]]:
        """Start an episode in the world with this seed; without a seed, in a world with a random seed."""
        super().reset(seed=seed)
        self._current = self.world.reset(int(self.np_random.integers(2**31)) if seed is None else seed)
        self._begin()
        return self._features(), {"slot": self.world.slot, "asking": len(self._current)}

    def step(self, action: Any) -> tuple[Array, float, bool, bool, dict[str, Any]]:
        """Serve all current requests and advance to the next ones.

        Raises:
            InputError: the action is outside the action space.
        """
        action = np.asarray(action, dtype=self.action_space.dtype)
        if not self.action_space.contains(action):
            raise InputError(
                "An action is outside the action space.", expected=str(self.action_space),
                found=f"shape {action.shape}, from {action.min(initial=0)} to {action.max(initial=0)}",
            )  # fmt: skip
        world = self.world
        exposure = world.step(self._choice(action[self._current.requests.user]))
        if "style" in exposure.display:
            clicked = exposure.outcome["click"][:, 0]
            np.add.at(self._history, (exposure.user, exposure.display["style"][:, 0]), clicked)
        self._current = world.observation
        reward = float(world.reward(exposure.outcome).sum() / world.scenario.users)
        over = world.slot * world.slot_days >= world.scenario.days
        return self._features(), reward, False, over, {"slot": world.slot, "asking": len(self._current)}

    def _begin(self) -> None:
        self._history[:] = 0
        self._draws = Draws(self.world.seed, "environment")
        self._content = ContentPolicy(self.world)

    def _choice(self, action: Array) -> Choice:
        observation, s = self._current, self.world.scenario
        items = observation.candidates.items
        if s.task == "cache":
            chosen = self._content.choose(observation, 2 * s.slate)
            return Choice(chosen.items, chosen.propensity, row={"fresh": action})
        if s.task == "copy":
            chosen = self._content.choose(observation, s.slate)
            return Choice(chosen.items, display={"style": np.repeat(action[:, None], chosen.items.shape[1], axis=1)})
        scores = action if s.task == "slate" else np.einsum("bk,bck->bc", action, self.predictions(observation))
        scores = np.where(items == NO_ITEM, -np.inf, scores)
        best = np.argsort(-scores, axis=1, kind="stable")[:, : 2 * s.slate]  # items that are not shown may be cached
        return Choice(np.take_along_axis(items, best, axis=1))

    def _fused(self) -> tuple[str, ...]:
        user = np.zeros(1, dtype=np.int64)
        return tuple(name for name in FUSED if name in self.world.truth.expect(user, user))

    def predictions(self, observation: Observation) -> Array:
        """Return (B, C, K) logarithms of the K predictions in ``fused``, centred within each request.

        Each prediction has a random error, which is constant per user and item.
        """
        if (
            self._predicted is not None and self._predicted[0] is observation
        ):  # the observation and the next action use the same predictions
            return self._predicted[1]
        items = observation.candidates.items
        b, c = items.shape
        exact = self.world.truth.alone(observation, items)
        keys = (observation.requests.user[:, None], items + 1)
        logs = [
            np.log(exact[name] + 1e-9) + PREDICTION_NOISE * self._draws.normal(f"error of {name}", *keys)
            for name in self.fused
        ]
        there = (items != NO_ITEM)[..., None]
        found = np.where(there, np.stack(logs, axis=-1), 0.0)
        mean = found.sum(axis=1, keepdims=True) / np.maximum(there.sum(axis=1, keepdims=True), 1)
        centred = np.where(there, found - mean, 0.0).reshape(b, c, len(self.fused))
        self._predicted = observation, centred
        return centred

    def _features(self) -> Array:
        """Return user features (users, F), zeros for users without a request."""
        observation, s = self._current, self.world.scenario
        b, user, public = len(observation), observation.requests.user, observation.public
        hour = 2 * np.pi * to_days(observation.requests.time)
        seen = public.seen[user]
        columns = [np.ones(b), np.sin(hour), np.cos(hour), observation.place / 5, np.log1p(seen) / 3]
        columns.append(public.clicked[user] / np.maximum(seen * s.slate, 1))
        for name, values in observation.requests.columns.items():
            known = self.choices.get(name)
            columns += [np.asarray(values, dtype=np.float64)] if known is None else [1.0 * (values == k) for k in known]
        parts = [np.stack(columns, axis=1)]
        if s.task == "slate":
            parts.append(self._content.scores(observation))
            rate = public.clicks / np.maximum(public.exposures, 1)
            parts.append(rate[observation.candidates.items])
        elif s.task == "fusion":
            parts.append(self.predictions(observation).std(axis=1))
        elif s.task == "copy":
            parts.append(np.log1p(self._history[user]))
        found = np.zeros((s.users, sum(part.shape[1] for part in parts)), dtype=np.float32)
        found[user] = np.clip(np.concatenate(parts, axis=1), -BOUND, BOUND)
        return found
