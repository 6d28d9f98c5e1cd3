"""Values of requests if the load decides whether a list is computed or taken from the cache (CARL, arXiv 2404.14961).

The load level follows a Markov chain P: the level of the next request depends only on the current level, not on the
action. Let V (C, S) be the values by level and state, r (C, S) the rewards, and T (S, S) the transition probabilities
of the states. Then ``V = r + γ P V Tᵀ``, so the critic of each level depends on all other levels. With the eigenvectors
U of P, ``P = U Λ U⁻¹``, and the coordinates ``Ṽ = U⁻¹ V`` and ``r̃ = U⁻¹ r``, the equations separate:
``Ṽ_k = r̃_k + γ λ_k Ṽ_k Tᵀ``. This is exact for the evaluation of a given policy if T is the same at every level.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from taiji.core.errors import InputError
from taiji.core.settings import Settings as Base
from taiji.models.learnt_component import LearntComponent
from taiji.models.policy.session_returns import NO_ROW

Array = NDArray[Any]
CONDITION = 1e4
"""Largest condition number of the eigenvectors that :func:`load_basis` accepts by default."""


@dataclass(frozen=True)
class LoadBasis:
    """Eigenvectors of a chain of load levels.

    Attributes:
        values: eigenvalues λ (C,), descending from 1.
        vectors: U (C, C), one eigenvector per column.
        inverse: U⁻¹ (C, C).
        condition: condition number of U.
    """

    values: Array
    vectors: Array
    inverse: Array
    condition: float


def load_basis(chain: Array, most: float = CONDITION) -> LoadBasis:
    """Return the eigenvectors of a chain: a matrix (C, C) of transition probabilities, whose rows sum to 1.

    Real eigenvectors exist for every chain of two levels, and for every reversible chain, such as one in which levels
    move only to their neighbours.

    Raises:
        InputError: the matrix is not a chain, its eigenvalues are not real, or the condition number of its eigenvectors
            exceeds ``most``.
    """
    chain = np.asarray(chain, dtype=np.float64)
    if (
        chain.ndim != 2
        or chain.shape[0] != chain.shape[1]
        or (chain < 0).any()
        or not np.allclose(chain.sum(axis=1), 1, atol=1e-9)
    ):
        raise InputError(
            "The matrix does not contain transition probabilities of load levels.",
            where="chain",
            expected="a square matrix of probabilities whose rows sum to 1",
            found=f"shape {chain.shape}, sums {np.round(chain.sum(axis=-1), 6).tolist()}",
        )
    values, vectors = np.linalg.eig(chain)
    condition = float(np.linalg.cond(vectors))
    if np.abs(values.imag).max() > 1e-12 or not condition <= most:
        raise InputError(
            "The chain of load levels has no eigenvectors that make the critics independent.",
            where="chain",
            expected=f"real eigenvalues, and eigenvectors with a condition number of at most {most:g}",
            found=f"eigenvalues {np.round(values, 6).tolist()}, condition number {condition:.3g}",
            fix="merge levels (two levels always work), or use coupled_values",
        )
    order = np.argsort(-values.real, kind="stable")
    vectors = vectors.real[:, order]
    return LoadBasis(values.real[order], vectors, np.linalg.inv(vectors), condition)


def fit_chain(now: Array, then: Array, levels: int, prior: float = 0.5) -> Array:
    """Return the chain (C, C) fitted to observed pairs of successive levels.

    Load varies over the day: fit one chain per part of the day, and compute the critics with the chain of the current
    hour.

    Args:
        now: (n,) levels of requests.
        then: (n,) levels of the next requests.
        levels: number C of levels.
        prior: count that is added to each of the C² pairs of levels.

    Raises:
        InputError: a level is out of range, or the prior is not positive.
    """
    now, then = np.asarray(now, dtype=np.int64), np.asarray(then, dtype=np.int64)
    both = np.concatenate([now, then])
    if len(now) != len(then) or prior <= 0 or ((both < 0) | (both >= levels)).any():
        raise InputError(
            "A chain of load levels cannot be fitted to these pairs.",
            where="now, then, prior",
            expected=f"two arrays of equal length with levels from 0 to {levels - 1}, and a prior above 0",
            found=f"lengths {len(now)} and {len(then)}, levels from {both.min(initial=0)} to {both.max(initial=0)}, prior {prior:g}",
        )
    counts = np.full((levels, levels), prior, dtype=np.float64)
    np.add.at(counts, (now, then), 1.0)
    return np.asarray(counts / counts.sum(axis=1, keepdims=True))


def coupled_values(chain: Array, moves: Array, rewards: Array, discount: float) -> Array:
    """Return the exact values V (C, S). The transitions of states may depend on the level.

    Args:
        chain: (C, C) transition probabilities of the levels.
        moves: transition probabilities of the states, (S, S), or (C, S, S) by level.
        rewards: (C, S) rewards by level and state.
        discount: γ below 1.
    """
    levels, states = rewards.shape
    each = np.broadcast_to(moves, (levels, states, states))
    system = np.eye(levels * states) - discount * np.einsum("cd,cst->csdt", chain, each).reshape(levels * states, -1)
    return np.linalg.solve(system, rewards.ravel()).reshape(levels, states)


def eigen_values(chain: Array, moves: Array, rewards: Array, discount: float) -> Array:
    """Return V (C, S) from one system of S equations per level, in eigenvector coordinates.

    The values are exact if the level does not affect the transitions of states.

    Args:
        chain: (C, C) transition probabilities of the levels.
        moves: (S, S) transition probabilities of the states.
        rewards: (C, S) rewards by level and state.
        discount: γ below 1.

    Raises:
        InputError: :func:`load_basis` rejects the chain.
    """
    basis = load_basis(chain)
    own = basis.inverse @ rewards
    found = [
        np.linalg.solve(np.eye(len(moves)) - discount * value * moves, reward)
        for value, reward in zip(basis.values, own)
    ]
    return np.asarray(basis.vectors @ np.stack(found))


Form = Literal["eigen", "coupled", "expected"]


def td_values(
    form: Form, states: Array, levels: Array, rewards: Array, chain: Array, discount: float, rate: float, size: int
) -> Array:
    """Return the values V (R, C, S) learnt by TD(0) from R independent runs of n steps.

    The form ``coupled`` uses the observed next level, and ``expected`` uses the mean over next levels under the chain.
    Both update only the critic of the observed level. The form ``eigen`` updates the critics of all coordinates at
    every step. A step reveals the reward of only one level, so ``eigen`` uses a running mean of the rewards by level
    and state. Up to rounding, ``eigen`` equals ``expected`` with an update of all levels at each step. Its advantage
    therefore comes from updating all levels, not from the coordinates.

    Args:
        form: form of the update.
        states, levels: (R, n + 1) states and load levels.
        rewards: (R, n) rewards of the steps.
        chain: (C, C) transition probabilities of the levels.
        discount: γ.
        rate: step size.
        size: number S of states.
    """
    runs, steps = rewards.shape
    count, each = len(chain), np.arange(runs)
    value = np.zeros((runs, count, size))
    if form == "eigen":
        basis, mean, seen = load_basis(chain), np.zeros((runs, count, size)), np.zeros((runs, count, size))
    for t in range(steps):
        s, to, c, reward = states[:, t], states[:, t + 1], levels[:, t], rewards[:, t]
        if form == "eigen":
            seen[each, c, s] += 1
            mean[each, c, s] += (reward - mean[each, c, s]) / seen[each, c, s]
            target = mean[each, :, s] @ basis.inverse.T + discount * basis.values * value[each, :, to]
            value[each, :, s] += rate * (target - value[each, :, s])
            continue
        if form == "coupled":
            ahead = value[each, levels[:, t + 1], to]
        else:
            ahead = np.einsum("rc,rc->r", chain[c], value[each, :, to])
        value[each, c, s] += rate * (reward + discount * ahead - value[each, c, s])
    return np.einsum("ck,rks->rcs", basis.vectors, value) if form == "eigen" else value


def reward_heads(features: Array, level: Array, rewards: Array, levels: int, ridge: float) -> Array:
    """Return the coefficients (C, F) of ridge regressions of rewards (n,) on features (n, F), one fitted per level."""
    heads = []
    for c in range(levels):
        x, y = features[level == c], rewards[level == c]
        heads.append(np.linalg.solve(x.T @ x + ridge * len(x) * np.eye(x.shape[1]), x.T @ y))
    return np.stack(heads)


def eigen_critics(basis: LoadBasis, own: Array, ahead: Array, heads: Array, discount: float, ridge: float) -> Array:
    """Return linear critics (C, F) from one system of F equations per level, in eigenvector coordinates.

    Args:
        basis: basis of the chain.
        own: (F, F) mean of x xᵀ over all requests, where x are the features of a request.
        ahead: (F, F) mean of x yᵀ, where y are the features of the session's next request.
        heads: (C, F) regressions from :func:`reward_heads`.
        discount: γ.
        ridge: penalty on the diagonal of each system.
    """
    regular = own + ridge * np.eye(len(own))
    found = [
        np.linalg.solve(regular - discount * value * ahead, own @ head)
        for value, head in zip(basis.values, basis.inverse @ heads)
    ]
    return np.asarray(basis.vectors @ np.stack(found))


class CacheCriticsSettings(Base):
    """Settings of :class:`CacheCritics`."""

    levels: int = Field(default=2, ge=2)
    """Number of load levels."""
    discount: float = Field(default=0.9, ge=0, lt=1)
    """Discount γ from one request of a session to the next."""
    ridge: float = Field(default=1e-3, gt=0)
    """Ridge penalty, per row, on the diagonals of the least-squares systems."""


class CacheCritics(LearntComponent):
    """Linear critics in eigenvector coordinates, by least squares on temporal differences (LSTD, Bradtke & Barto 1996).

    The fit does not depend on the chain: :meth:`values` takes the chain of the current hour.
    """

    Settings = CacheCriticsSettings
    settings: CacheCriticsSettings

    def fit(self, features: Array, after: Array, level: Array, rewards: Array) -> CacheCritics:
        """Fit the critics to logged requests.

        Args:
            features: (n, F) features of a request's state and action, without the load.
            after: (n,) row of the session's next request, −1 at the end of the session.
            level: (n,) load level at the request, from 0.
            rewards: (n,) rewards of the requests.

        Raises:
            InputError: a level has no rows or is out of range.
        """
        s, features = self.settings, np.asarray(features, dtype=np.float64)
        own, rows = np.unique(np.asarray(level, dtype=np.int64), return_counts=True)
        if own.tolist() != list(range(s.levels)):
            raise InputError(
                "Critics of load levels cannot be learnt from these rows.",
                where="level",
                expected=f"rows of each of the levels 0 to {s.levels - 1}",
                found=f"rows by level: {dict(zip(own.tolist(), rows.tolist()))}",
                fix="set levels to the number of levels in the log, or merge levels",
            )
        following = np.where((after != NO_ROW)[:, None], features[after], 0.0)
        self.own = features.T @ features / len(features)
        self.next = features.T @ following / len(features)
        self.heads = reward_heads(features, level, rewards, s.levels, s.ridge)
        return self

    def values(self, features: Array, chain: Array) -> Array:
        """Return the values (n, C) of features (n, F) at each level, under a chain (C, C).

        Raises:
            InputError: :func:`load_basis` rejects the chain.
        """
        s = self.settings
        critics = eigen_critics(load_basis(chain), self.own, self.next, self.heads, s.discount, s.ridge)
        return np.asarray(features @ critics.T)

    def weights(self) -> dict[str, Array]:
        """Return the second moments of the features and the regressions of the rewards."""
        return {"own": self.own, "next": self.next, "heads": self.heads}

    def restore(self, weights: dict[str, Array]) -> None:
        """Restore the critics from :meth:`weights`."""
        self.own, self.next, self.heads = weights["own"], weights["next"], weights["heads"]
