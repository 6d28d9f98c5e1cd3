"""Users of a retention world as an environment of stable-baselines3, for the baselines TD3 and PPO.

A step is a day. An action sets, for one user and day, the weights with which an item's predictions are fused. TD3
learns from the log alone. Its transitions go from a day on which the user sends a request to the next such day, and the
cost is the number of days between them (the return time of Liu et al. 2023). PPO acts in worlds with other seeds, where
the reward is 1 for a day with a request.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from gymnasium import spaces
from numpy.typing import NDArray
from stable_baselines3 import PPO, TD3
from stable_baselines3.common.buffers import ReplayBuffer
from stable_baselines3.common.logger import configure
from stable_baselines3.common.vec_env import VecEnv

from taiji.world.environment import WorldEnv

Array = NDArray[Any]
Act = Callable[[Array], Array]
"""Policy: function from observations to weights."""
Known = Callable[[Array], Array]
"""Function from observations to the states that an agent reads."""
PPO_WORLDS = 2
"""Number of worlds with other seeds in which PPO acts, each with as many users as the log."""


class UserDays(VecEnv):
    """Vectorised environment with one entry per user of a world; a step is a day.

    Args:
        env: the world.
        days: length of an episode.
        known: function from observations to states.
    """

    def __init__(self, env: WorldEnv, days: int, known: Known) -> None:
        self.env, self.days, self.known = env, days, known
        seen, self.told = env.reset(seed=env.world.seed)
        self.seen = seen
        self.states = known(seen).astype(np.float32)
        box = spaces.Box(-np.inf, np.inf, self.states.shape[1:], np.float32)
        super().__init__(len(seen), box, spaces.Box(-1.0, 1.0, (len(env.fused),), np.float32))

    def reset(self) -> Array:
        """Restart the world."""
        self.seen, self.told = self.env.reset(seed=self.env.world.seed)
        self._look()
        return self.states.copy()

    def step_async(self, actions: Array) -> None:
        """Convert the actions of the day from [-1, 1] to weights in [0, 1], and store them."""
        self.actions = np.clip((actions + 1) / 2, 0.0, 1.0).astype(np.float32)

    def step_wait(self) -> tuple[Array, Array, Array, list[dict[str, Any]]]:
        """Play one day, and return states, rewards, ends of episodes and information."""
        day, came = self.told["slot"], np.zeros(self.num_envs, np.float32)
        while self.told["slot"] == day:
            came[self.seen[:, 0] > 0] = 1.0
            self.seen, _, _, _, self.told = self.env.step(self.actions)
            self._look()
        over = self.told["slot"] >= self.days
        about: list[dict[str, Any]] = [{} for _ in range(self.num_envs)]
        if over:
            last = self.states.copy()
            about = [{"terminal_observation": row, "TimeLimit.truncated": True} for row in last]
            self.reset()
        return self.states.copy(), came, np.full(self.num_envs, over), about

    def _look(self) -> None:
        asks = self.seen[:, 0] > 0  # the state of a user without a request stays as it was
        self.states[asks] = self.known(self.seen)[asks]

    def close(self) -> None:
        """Do nothing: there is nothing to close."""

    def get_attr(self, attr_name: str, indices: Any = None) -> list[Any]:
        """Return an attribute once per user."""
        return [getattr(self, attr_name, None)] * self.num_envs

    def set_attr(self, attr_name: str, value: Any, indices: Any = None) -> None:
        """Set an attribute."""
        setattr(self, attr_name, value)

    def env_method(self, method_name: str, *arguments: Any, indices: Any = None, **named: Any) -> list[Any]:
        """Call a method, and return its result in a list."""
        return [getattr(self, method_name)(*arguments, **named)]

    def env_is_wrapped(self, wrapper_class: Any, indices: Any = None) -> list[bool]:
        """Return False for each user: there are no wrappers."""
        return [False] * self.num_envs


def acting(model: Any, known: Known, scale: tuple[Array, Array]) -> tuple[Act, int]:
    """Return the policy of an agent, without exploration, and its number of parameters.

    ``scale`` contains the mean and the standard deviation by which states are standardised.
    """
    centre, spread = scale

    def act(seen: Array) -> Array:
        actions, _ = model.predict(((known(seen) - centre) / spread).astype(np.float32), deterministic=True)
        return np.asarray((actions + 1) / 2)

    return act, sum(parameter.numel() for parameter in model.policy.parameters())


def td3(days: Sequence[Array], known: Known, configuration: dict[str, Any], seed: int) -> tuple[Act, int]:
    """Return the policy of TD3, trained on transitions, and its number of parameters.

    ``days`` contains states (n, S), weights (n, K), rewards (n,) and next states (n, S), for n transitions, S numbers
    per state and K weights.
    """
    states, weights, rewards, after = days
    scale = states.mean(axis=0), np.maximum(states.std(axis=0), 1e-6)
    told, then = (((part - scale[0]) / scale[1]).astype(np.float32) for part in (states, after))
    view = spaces.Box(-np.inf, np.inf, told.shape[1:], np.float32)
    actions = spaces.Box(-1.0, 1.0, weights.shape[1:], np.float32)
    model = TD3("MlpPolicy", _Still(view, actions), policy_kwargs={"net_arch": [64, 64]}, batch_size=256, seed=seed,
                device="cpu", learning_rate=1e-3, buffer_size=len(told), gamma=configuration["discount"])  # fmt: skip
    model.set_logger(configure(None, []))
    buffer = ReplayBuffer(len(told), view, actions, device="cpu")
    rewards = (rewards - rewards.mean()) / max(float(rewards.std()), 1e-9)
    for row in zip(told, then, (2 * weights - 1).astype(np.float32), rewards):
        buffer.add(*row[:3], row[3], np.zeros(1), [{}])
    model.replay_buffer = buffer
    model.train(gradient_steps=600, batch_size=256)
    return acting(model, known, scale)


class _Still(UserDays):
    """Environment without a world, which only has spaces, for agents that learn from a log."""

    def __init__(self, view: spaces.Box, actions: spaces.Box) -> None:
        VecEnv.__init__(self, 1, view, actions)


def ppo(
    envs: Sequence[WorldEnv], days: int, known: Known, scale: tuple[Array, Array], rate: float, seed: int
) -> tuple[Act, int]:
    """Return the policy of PPO, trained for one episode in each world in turn, and its number of parameters."""
    centre, spread = scale
    model: PPO | None = None
    for env in envs:
        users = UserDays(env, days, lambda seen: (known(seen) - centre) / spread)
        if model is None:
            model = PPO("MlpPolicy", users, n_steps=days, batch_size=1000, learning_rate=rate, gamma=0.9, seed=seed, device="cpu",
                        policy_kwargs={"net_arch": [64, 64]})  # fmt: skip
        else:
            model.set_env(users)
        model.learn(days * users.num_envs, reset_num_timesteps=False)
    return acting(model, known, scale)
