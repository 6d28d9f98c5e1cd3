"""Policy that critics of cache-aware requests train (CARL's actor, arXiv 2404.14961), for actions that can be counted.

What is done in a state is the same at every load level, as otherwise the level would move the states, and the coordinates of the eigenvectors
would not separate. The actor takes what the critic of one level (real time, 0) values most; the critics are then asked about that policy, and so
on: policy iteration on a log (Lagoudakis & Parr 2003). Where only so many requests can take the last action (a list that is computed), those do to
whom it matters most.
"""

from __future__ import annotations

from typing import Any, Self

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, PositiveInt

from taiji.core.errors import InputError
from taiji.core.settings import Settings as Base
from taiji.models.learnt_component import LearntComponent
from taiji.models.policy.cache_critics import Form, eigen_critics, load_basis, reward_heads
from taiji.models.policy.session_returns import NO_ROW

Array = NDArray[Any]


class CacheActorSettings(Base):
    """Settings of :class:`CacheActor`."""

    form: Form = "eigen"
    """Form of the look ahead: in the coordinates of the chain's eigenvectors, or level by level to the mean level or to the one that came."""
    levels: int = Field(default=2, ge=2)
    """Load levels that are told apart; the actor heeds the critic of level 0."""
    actions: int = Field(default=2, ge=2)
    """Actions, numbered from 0."""
    share: float = Field(default=1.0, gt=0, le=1)
    """Share of requests that can take the last action, as where lists can be computed for so many; 1 for all."""
    discount: float = Field(default=0.9, ge=0, lt=1)
    """γ from a request of a session to the next."""
    ridge: float = Field(default=1e-3, gt=0)
    """Added per row to the diagonals of the least-squares systems."""
    rounds: PositiveInt = 5
    """Times that the critics are asked about the policy; 1 improves the logged one once."""


class CacheActor(LearntComponent):
    """Policy over actions, by linear critics of states (n, S) and actions.

    Attributes:
        critics: (C, A, S) at each level. bar: by how much the last action must be worth more than any other.
    """

    Settings = CacheActorSettings
    settings: CacheActorSettings

    def fit(self, states: Array, action: Array, after: Array, level: Array, rewards: Array, chain: Array) -> Self:
        """Learn from logged requests in which every action was tried.

        Args:
            states: (n, S) without the load. action: (n,). after: (n,) the session's next row, −1 at its end. level: (n,). rewards: (n,).
            chain: (C, C) of the levels, by :func:`~taiji.models.policy.cache_critics.fit_chain`.

        Raises:
            InputError: an action that was never taken at some level, or an action or level that there is not; as
                :func:`~taiji.models.policy.cache_critics.load_basis`.
        """
        s, states = self.settings, np.asarray(states, dtype=np.float64)
        action, level = np.asarray(action, dtype=np.int64), np.asarray(level, dtype=np.int64)
        beyond = ((action < 0) | (action >= s.actions) | (level < 0) | (level >= s.levels)).any()
        taken = np.zeros((s.levels, s.actions), dtype=np.int64)
        if not beyond:
            np.add.at(taken, (level, action), 1)
        if not taken.all():
            raise InputError(
                "A policy cannot be learnt from these requests.",
                where="action, level",
                expected=f"each of the actions 0 to {s.actions - 1} at each of the levels 0 to {s.levels - 1}, and no others",
                found="numbers beyond them" if beyond else f"requests by level and action: {taken.tolist()}",
                fix="log with an even choice for a while, or merge levels",
            )
        own, goes_on = self._told(states, action), after != NO_ROW
        ahead = np.eye(s.levels)[level[after]] if s.form == "coupled" else np.asarray(chain)[level]
        basis, then = load_basis(chain), action[after]
        eigen = s.form == "eigen"
        heads = reward_heads(own, level, rewards, s.levels, s.ridge) if eigen else np.zeros(0)
        square = own.T @ own / len(own)
        for _ in range(s.rounds):
            following = np.where(goes_on[:, None], self._told(states[after], then), 0.0)
            if eigen:
                found = eigen_critics(basis, square, own.T @ following / len(own), heads, s.discount, s.ridge)
            else:
                found = self._by_level(own, following, level, rewards, ahead)
            self.critics = found.reshape(s.levels, s.actions, -1)
            self.bar = np.zeros(1)
            if s.share < 1:
                self.bar = np.maximum(np.quantile(self.lead(states), [1 - s.share]), 0.0)
            then = self.act(states)[after]
        return self

    def values(self, states: Array) -> Array:
        """Return (C, n, A) what actions in states (n, S) are worth at each level."""
        return np.einsum("cas,ns->cna", self.critics, states)

    def lead(self, states: Array) -> Array:
        """Return (n,) by how much the last action is worth more than the best other, in real time."""
        worth = self.values(states)[0]
        return np.asarray(worth[:, -1] - worth[:, :-1].max(axis=1))

    def act(self, states: Array) -> Array:
        """Return actions (n,)."""
        others = self.values(states)[0][:, :-1].argmax(axis=1)
        return np.asarray(np.where(self.lead(states) > self.bar, self.settings.actions - 1, others))

    def weights(self) -> dict[str, Array]:
        """Return the critics and the bar."""
        return {"critics": self.critics, "bar": self.bar}

    def restore(self, weights: dict[str, Array]) -> None:
        """Take what :meth:`weights` returned."""
        self.critics, self.bar = weights["critics"], weights["bar"]

    def _told(self, states: Array, action: Array) -> Array:
        return np.asarray(
            (np.eye(self.settings.actions)[action][:, :, None] * states[:, None, :]).reshape(len(states), -1)
        )

    def _by_level(self, own: Array, following: Array, level: Array, rewards: Array, ahead: Array) -> Array:
        """Return critics (C, F) of one system, where a request teaches the critic of its own level."""
        s, size, rows = self.settings, own.shape[1], len(own)
        here = np.eye(s.levels)[level]
        wide = (here[:, :, None] * own[:, None, :]).reshape(rows, -1)
        then = (ahead[:, :, None] * following[:, None, :]).reshape(rows, -1)
        system = wide.T @ (wide - s.discount * then) / rows + s.ridge * np.eye(s.levels * size)
        return np.asarray(np.linalg.solve(system, wide.T @ rewards / rows).reshape(s.levels, size))
