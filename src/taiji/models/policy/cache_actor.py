"""Policy over a finite number of actions, trained by critics that value fresh and cached lists (the actor of CARL,
arXiv 2404.14961).

The action in a state is the same at every load level. Otherwise the level would affect the transitions between states,
and the equations in eigenvector coordinates would not separate (see :mod:`.cache_critics`). The fit is policy iteration
on a log (Lagoudakis & Parr 2003): the critics of the current policy are computed, the policy is changed to the action
with the highest value at level 0 (lists are computed in real time), and both steps are repeated. If only a limited
share of the requests can take the last action (computing a list), the requests that gain most from it take it.
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
    """Computation of the next request's value: in the eigenvector coordinates of the chain of load levels (`eigen`), or
    level by level with the mean over possible next levels (`expected`) or with the observed next level (`coupled`)."""
    levels: int = Field(default=2, ge=2)
    """Number of load levels; actions are chosen by the critic of level 0."""
    actions: int = Field(default=2, ge=2)
    """Number of actions, numbered from 0."""
    share: float = Field(default=1.0, gt=0, le=1)
    """Largest share of requests that can take the last action, such as computing a list; 1 for all."""
    discount: float = Field(default=0.9, ge=0, lt=1)
    """Discount γ from one request of a session to the next."""
    ridge: float = Field(default=1e-3, gt=0)
    """Ridge penalty, per row, on the diagonals of the least-squares systems."""
    rounds: PositiveInt = 5
    """Number of rounds, in each of which the critics of the current policy are computed and the policy is changed. With
    1, the logged policy is improved once."""


class CacheActor(LearntComponent):
    """Policy that chooses among A actions by critics that are linear in the state (n, S).

    Attributes:
        critics: (C, A, S) coefficients for each of the C levels.
        bar: (1,) amount by which the last action must be worth more than the best other action to be chosen.
    """

    Settings = CacheActorSettings
    settings: CacheActorSettings

    def fit(self, states: Array, action: Array, after: Array, level: Array, rewards: Array, chain: Array) -> Self:
        """Fit the policy to logged requests in which every action was tried.

        Args:
            states: (n, S) states without the load.
            action: (n,) logged actions, from 0.
            after: (n,) row of the session's next request, −1 at its end.
            level: (n,) load level at the request, from 0.
            rewards: (n,) rewards of the requests.
            chain: (C, C) transition probabilities of the levels, from
                :func:`~taiji.models.policy.cache_critics.fit_chain`.

        Raises:
            InputError: an action was never taken at some level, an action or level is out of range, or
                the form is ``eigen`` and :func:`~taiji.models.policy.cache_critics.load_basis` rejects the chain.
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
                found="numbers out of this range" if beyond else f"requests by level and action: {taken.tolist()}",
                fix="choose actions uniformly for a while and log them, or merge levels",
            )
        own, goes_on = self._told(states, action), after != NO_ROW
        ahead = np.eye(s.levels)[level[after]] if s.form == "coupled" else np.asarray(chain)[level]
        then = action[after]
        basis = load_basis(chain) if s.form == "eigen" else None
        heads = np.zeros(0) if basis is None else reward_heads(own, level, rewards, s.levels, s.ridge)
        square = own.T @ own / len(own)
        for _ in range(s.rounds):
            following = np.where(goes_on[:, None], self._told(states[after], then), 0.0)
            if basis is not None:
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
        """Return the values (C, n, A) of actions in states (n, S) at each level."""
        return np.einsum("cas,ns->cna", self.critics, states)

    def lead(self, states: Array) -> Array:
        """Return how much more the last action is worth than the best other action at level 0, (n,)."""
        worth = self.values(states)[0]
        return np.asarray(worth[:, -1] - worth[:, :-1].max(axis=1))

    def act(self, states: Array) -> Array:
        """Return the actions (n,) in states (n, S)."""
        others = self.values(states)[0][:, :-1].argmax(axis=1)
        return np.asarray(np.where(self.lead(states) > self.bar, self.settings.actions - 1, others))

    def weights(self) -> dict[str, Array]:
        """Return the critics and the threshold :attr:`bar`."""
        return {"critics": self.critics, "bar": self.bar}

    def restore(self, weights: dict[str, Array]) -> None:
        """Restore the policy from :meth:`weights`."""
        self.critics, self.bar = weights["critics"], weights["bar"]

    def _told(self, states: Array, action: Array) -> Array:
        return np.asarray(
            (np.eye(self.settings.actions)[action][:, :, None] * states[:, None, :]).reshape(len(states), -1)
        )

    def _by_level(self, own: Array, following: Array, level: Array, rewards: Array, ahead: Array) -> Array:
        """Return critics (C, F) from one linear system, in which each request contributes to the critic of its own
        level."""
        s, size, rows = self.settings, own.shape[1], len(own)
        here = np.eye(s.levels)[level]
        wide = (here[:, :, None] * own[:, None, :]).reshape(rows, -1)
        then = (ahead[:, :, None] * following[:, None, :]).reshape(rows, -1)
        system = wide.T @ (wide - s.discount * then) / rows + s.ridge * np.eye(s.levels * size)
        return np.asarray(np.linalg.solve(system, wide.T @ rewards / rows).reshape(s.levels, size))
