"""Linear policy learnt from the returns of whole sessions, by policy gradients with parameter-based exploration.

For each session, parameters θ are drawn around the policy's parameters θ₀ and used until the session ends, so that the
session's return R includes the effect of actions on later requests. For normal draws, the natural gradient of the
expected return is E[(R − b) (θ − θ₀)], with any baseline b (policy gradients with parameter-based exploration, Sehnke
et al. 2010). This needs neither a model of the environment nor a derivative of the score.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from taiji.core.errors import InputError

Array = NDArray[Any]


class SessionPolicy:
    """Policy whose actions are linear in the state of a request.

    Args:
        actions: length K of an action.
        states: length S of a state; a constant is appended to each state.
        spread: standard deviation of the drawn parameters.

    Attributes:
        parameters: (K, S + 1) parameters, initially 0. The last column belongs to the constant.
    """

    def __init__(self, actions: int, states: int, spread: float) -> None:
        self.parameters, self.spread = np.zeros((actions, states + 1)), spread

    def draw(self, sessions: int, random: np.random.Generator) -> Array:
        """Return parameters (N, K, S + 1) for N sessions, drawn in antithetic pairs around the policy's parameters."""
        half = random.normal(size=((sessions + 1) // 2, *self.parameters.shape))
        drawn = np.stack([half, -half], axis=1).reshape(-1, *self.parameters.shape)[:sessions]
        return np.asarray(self.parameters + self.spread * drawn)

    def act(self, states: Array, parameters: Array | None = None) -> Array:
        """Return actions (B, K) in states (B, S), with parameters (B, K, S + 1) or, for None, those of the policy."""
        own = self.parameters if parameters is None else parameters
        told = np.concatenate([states, np.ones((len(states), 1))], axis=1)
        return np.einsum("...ks,...s->...k", own, told)

    def improve(self, drawn: Array, returns: Array, rate: float) -> None:
        """Take a step along the natural gradient.

        Args:
            drawn: (N, K, S + 1) parameters that were drawn for the sessions.
            returns: (N,) returns of the sessions.
            rate: step size for standardised returns.

        Raises:
            InputError: there are fewer than two sessions, the numbers of sessions and returns differ, or a return is
                not finite.
        """
        found = np.asarray(returns, np.float64)
        if len(found) < 2 or len(found) != len(drawn) or not np.isfinite(found).all():
            raise InputError(
                "The policy cannot be improved with these sessions.",
                where="returns",
                expected=f"a finite number for each of the {len(drawn)} sessions, at least two",
                found=f"{len(found)} numbers, {int((~np.isfinite(found)).sum())} of them not finite",
            )
        lead = (found - found.mean()) / max(float(found.std()), 1e-12)
        self.parameters = self.parameters + rate * np.tensordot(lead, drawn - self.parameters, axes=1) / len(found)
