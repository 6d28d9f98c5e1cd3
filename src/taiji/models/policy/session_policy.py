"""Linear policy learnt from the returns of whole sessions, by policy gradients with parameter-based exploration.

Each session draws its own parameters around the policy's and keeps them to its end, so that its return includes the effect of actions on later
requests. With normal draws of standard deviation σ the natural gradient of the expected return is E[(R − b) (θ − θ₀)] (policy
gradients with parameter-based exploration, Sehnke et al. 2010): which needs neither a model of the environment nor a derivative of the score.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from taiji.core.errors import InputError

Array = NDArray[Any]


class SessionPolicy:
    """Policy whose actions are linear in a request's state.

    Args:
        actions: length of an action. states: length of a state; a constant is added. spread: σ of the drawn parameters.

    Attributes:
        parameters: (K, S + 1), initially 0; the last column belongs to the constant.
    """

    def __init__(self, actions: int, states: int, spread: float) -> None:
        self.parameters, self.spread = np.zeros((actions, states + 1)), spread

    def draw(self, sessions: int, random: np.random.Generator) -> Array:
        """Return parameters (N, K, S + 1) for sessions, in antithetic pairs around the policy's own."""
        half = random.normal(size=((sessions + 1) // 2, *self.parameters.shape))
        drawn = np.stack([half, -half], axis=1).reshape(-1, *self.parameters.shape)[:sessions]
        return np.asarray(self.parameters + self.spread * drawn)

    def act(self, states: Array, parameters: Array | None = None) -> Array:
        """Return actions (B, K) in states (B, S), from parameters (B, K, S + 1), by default the policy's own."""
        own = self.parameters if parameters is None else parameters
        told = np.concatenate([states, np.ones((len(states), 1))], axis=1)
        return np.einsum("...ks,...s->...k", own, told)

    def improve(self, drawn: Array, returns: Array, rate: float) -> None:
        """Take a step along the natural gradient.

        Args:
            drawn: (N, K, S + 1) parameters of the sessions. returns: (N,) of the sessions. rate: step size for standardised returns.

        Raises:
            InputError: fewer than two sessions, or a return that is not finite.
        """
        found = np.asarray(returns, np.float64)
        if len(found) < 2 or len(found) != len(drawn) or not np.isfinite(found).all():
            raise InputError(
                "A policy cannot be improved from these sessions.",
                where="returns",
                expected=f"a finite number for each of the {len(drawn)} sessions, at least two",
                found=f"{len(found)} numbers, {int((~np.isfinite(found)).sum())} of them not finite",
            )
        lead = (found - found.mean()) / max(float(found.std()), 1e-12)
        self.parameters = self.parameters + rate * np.tensordot(lead, drawn - self.parameters, axes=1) / len(found)
